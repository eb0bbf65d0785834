"""Where in the messages of each service the name of who did it is.

As in :mod:`statscache.about.tables`; of what the paths of a topic find, the first is the agent, so
that the paths of a particular topic stand before those of the service.

The rules agree with the processors of fedmsg_meta_fedora_infrastructure, with one exception: the
processors of ``askbot``, ``irc`` and ``trac`` do not know who acted, and of all users of a message
fedmsg.meta then returns an arbitrary one: who is thanked as likely as who thanks. These rules
return who acted.
"""

from __future__ import annotations

AGENTS: dict[str, tuple[str, ...]] = {
    "allpackages.#": ("username",),
    "announce.#": ("^username",),
    "anitya.#": ("message.agent | account",),
    "ansible.#": ("userid",),
    "askbot.#": ("agent",),
    "autocloud.#": (),
    # Who comments on an update need not be who submitted it.
    "bodhi.update.comment.#": ("agent", "comment.user.name", "comment.author"),
    # The rest of the messages without an agent come from Bodhi itself, on behalf of the submitter.
    "bodhi.#": (
        "agent",
        "update.submitter.name || update.submitter || update.user.name",
        "override.submitter.name || override.submitter || override.user.name",
    ),
    "bugzilla.#": ("comment.author | account", "event.who | account"),
    # Who tags is not who built: `owner` is the owner of the build.
    "buildsys.tag": ("user",),
    "buildsys.untag": ("user",),
    "buildsys.build.state.change": ("owner",),
    "buildsys.package.list.change": ("user",),
    "buildsys.task.state.change": ("owner",),
    "ci.#": ("username", "artifact.issuer"),
    "cnucnuweb.#": ("message.agent | account",),
    "compose.#": (),
    "container.#": ("username",),
    # `owner` is whose project it is.
    "copr.#": ("user",),
    "coreos.#": (),
    "datanommer.#": (),
    "discourse.#": ("webhook_body.user.username", "webhook_body.post.username"),
    "faf.#": (),
    "fas.#": ("agent.username || agent.name || agent",),
    "fedbadges.#": ("user.username || person.nickname",),
    "fedimg.#": (),
    "fedocal.#": ("agent",),
    "fedora_elections.#": ("agent || fas_user",),
    "fedoracollege.#": ("agent",),
    "fedoratagger.rating.#": ("rating.user.username | somebody",),
    "fedoratagger.tag.#": ("vote.user.username | somebody",),
    "fedoratagger.usage.#": ("user.username | somebody",),
    "fedoratagger.user.#": ("user.username | somebody",),
    "fmn.#": ("openid | account",),
    # Who pushed; the author of a commit where only that is known.
    "git.#": ("agent || commit.agent || commit.username",),
    "github.#": (" | sender | person",),
    "gitlab.#": ("user.username || user_username",),
    "greenwave.#": (),
    "hotness.#": ("trigger.msg[build_id].owner",),
    "hubs.#": ("[hub_type!=stream].username", "[hub_type=user].hub_name"),
    "infragit.#": ("commit.username",),
    "irc.#": ("agent",),
    "jenkins.#": (),
    "kerneltest.#": ("agent",),
    "koschei.#": (),
    "logger.#": ("^username",),
    "mailman.#": ("msg.from | account",),
    "mbs.#": ("owner",),
    "mdapi.#": (),
    # Who leads the meeting, by nick.
    "meetbot.#": ("owner | somebody | nick",),
    "mirrormanager.#": (),
    "nagios.#": ("host_ack_author | account", "service_ack_author | account"),
    "nuancier.#": ("agent",),
    "odcs.#": ("compose.owner",),
    "openqa.#": ("user",),
    "pagure.#": ("agent",),
    "pagure.git.receive": ("commit.username || commit.email | account",),
    "pdc.#": (),
    "pkgdb.#": ("agent | somebody", "agent[0] | somebody"),
    "planet.#": ("username",),
    "pungi.#": (),
    "rats.#": ("agent",),
    "releng.#": (),
    "resultsdb.#": (),
    "summershum.#": ("original.agent",),
    "taskotron.#": (),
    "trac.#": ("agent", "commit.agent || commit.username", "page.author | commas"),
    "waiverdb.#": ("username",),
    "wiki.#": ("user | lower || user_text | lower",),
    "zanata.#": (),
}
