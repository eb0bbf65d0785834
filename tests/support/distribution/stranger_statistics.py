"""Plugins as their authors wrote them for the statscache of 2015, in a distribution of its own."""

import collections
import datetime

import sqlalchemy as sa

from statscache.plugins import BaseModel, BasePlugin, Schedule

NOT_A_PLUGIN = 42


class WikiEditsModel(BaseModel):
    __tablename__ = "data_wiki_edits"

    edits = sa.Column(sa.Integer, nullable=False)
    title = sa.Column(sa.UnicodeText, nullable=False, index=True)


class WikiEdits(BasePlugin):
    name = "wiki edits, by title"
    summary = "edits of each page"
    description = "How often each page of the wiki is edited per day."
    interval = datetime.timedelta(days=1)
    model = WikiEditsModel

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.edits = collections.defaultdict(int)

    def process(self, message):
        if not message["topic"].endswith("wiki.article.edit"):
            return
        when = self.schedule.next(now=datetime.datetime.utcfromtimestamp(message["timestamp"]))
        self.edits[message["msg"]["title"], when] += 1

    def update(self, session):
        for (title, when), edits in self.edits.items():
            row = session.query(self.model).filter_by(title=title, timestamp=when).first()
            if row is None:
                row = self.model(title=title, timestamp=when, edits=0)
            row.edits += edits
            session.add(row)
            session.commit()
        self.edits.clear()


class Slash(BasePlugin):
    name = "a/b"
    summary = "cannot be served"
    description = "Its ident has a slash."

    class model(BaseModel):  # noqa: N801
        __tablename__ = "data_slash"


class Messages:
    """Mixed into each of the generated classes."""

    name = "messages, per window"
    summary = "messages in each window"
    description = "How many messages there are in each window, of several widths."

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = collections.defaultdict(int)

    def process(self, message):
        now = datetime.datetime.utcfromtimestamp(message["timestamp"])
        self.counts[self.schedule.next(now=now)] += 1

    def update(self, session):
        for when, count in self.counts.items():
            row = session.query(self.model).filter(self.model.timestamp == when).first()
            if row:
                row.scalar += count
            else:
                row = self.model(timestamp=when, scalar=count)
            session.add(row)
        session.commit()
        self.counts.clear()


def generate(*intervals):
    for interval in intervals:
        width = str(Schedule(interval, datetime.datetime.now()))
        columns = {
            "__tablename__": f"data_messages_{width}",
            "scalar": sa.Column(sa.Integer, nullable=False),
        }
        model = type(f"Messages{width}Model", (BaseModel,), columns)
        yield type(
            f"Messages{width}", (Messages, BasePlugin), {"interval": interval, "model": model}
        )


generated = generate(datetime.timedelta(minutes=1), datetime.timedelta(hours=1))
