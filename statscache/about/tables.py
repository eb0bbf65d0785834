"""Where in the messages of each service the users and the packages are.

A pattern is of the topic from the service on: ``*`` is one token, ``#`` any number. All the rows
whose pattern matches a topic apply. The paths are explained in :mod:`statscache.about.paths`.

For the services that fedmsg_meta_fedora_infrastructure knows, the rules agree with its processors:
they come from the messages of its test suite, from its documentation of the topics and from its
behaviour. For the services that it does not know (``ci`` of Fedora, ``coreos``, ``discourse``,
``gitlab``, ``resultsdb``), and for newer versions of the others, they come from the schemas of the
messages. A service whose messages name no person has an empty row: without a row it would be an
unknown service.
"""

from __future__ import annotations

ALIASES: dict[str, str] = {
    "nicolas.mailhot@laposte.net": "nim",
    "puiterwijk@gmail.com": "puiterwijk",
    "rbean@redhat.com": "ralph",
    "threebean": "ralph",
}
"""Addresses and nicks in the published messages; ``statscache.about.aliases`` adds to them."""

UNKNOWN_SERVICE: tuple[str, ...] = ("agent | account", "username | account", "user | account")
"""Where the users of a service without rules may be; the first of them is who acted."""

USERS: dict[str, tuple[str, ...]] = {
    "allpackages.#": ("username",),
    "announce.#": ("^username",),
    "anitya.#": ("message.agent | account || ^username || =anitya",),
    "ansible.#": ("userid",),
    "askbot.#": ("agent", "newly_mentioned_users[]"),
    "autocloud.#": (),
    "bodhi.#": (
        "agent",
        "update.submitter.name || update.submitter || update.user.name",
        "override.submitter.name || override.submitter || override.user.name",
    ),
    "bodhi.update.comment.#": (
        "comment.author || comment.user.name",
        "comment.update.user.name",
        "comment.text | mentions",
    ),
    "bugzilla.#": (
        "comment.author | account",
        "event.who | account",
        "bug.creator | account",
        "bug.assigned_to | account",
        "bug.cc[] | account",
    ),
    "buildsys.build.state.change": ("owner",),
    "buildsys.tag": ("owner", "user"),
    "buildsys.task.state.change": ("owner",),
    "buildsys.untag": ("owner", "user"),
    "ci.#": ("username", "artifact.issuer"),
    "cnucnuweb.#": ("message.agent | account",),
    "compose.#": (),
    "container.#": ("username",),
    "copr.#": ("user", "owner"),
    "coreos.#": (),
    "datanommer.#": (),
    "discourse.#": ("webhook_body.user.username", "webhook_body.post.username"),
    "faf.#": ("maintainers[]",),
    "fas.#": (
        "agent.username || agent.name || agent",
        "user.username || user.name || user",
    ),
    "fedbadges.#": ("user.username || person.nickname",),
    "fedimg.#": (),
    "fedocal.#": ("agent",),
    "fedora_elections.#": ("agent || fas_user",),
    "fedoracollege.#": ("username || agent",),
    "fedoratagger.rating.#": ("rating.user.username | somebody",),
    "fedoratagger.tag.#": ("vote.user.username | somebody",),
    "fedoratagger.usage.#": ("user.username | somebody",),
    "fedoratagger.user.#": ("user.username | somebody",),
    "fmn.#": ("openid | account",),
    "git.#": ("agent || commit.username",),
    "github.#": ("fas_usernames{*} | person",),
    "gitlab.#": ("user.username || user_username",),
    "greenwave.#": (),
    "hotness.#": ("trigger.msg[build_id].owner",),
    "hubs.#": ("[hub_type!=stream].username", "[hub_type=user].hub_name"),
    "infragit.#": ("commit.username",),
    "irc.#": ("agent", "recipient"),
    "jenkins.#": (),
    "kerneltest.#": ("agent",),
    "koschei.#": (),
    "logger.#": ("^username",),
    "mailman.#": ("msg.from | account",),
    "mbs.#": ("owner",),
    "mdapi.#": (),
    "meetbot.#": ("attendees{} | somebody | nick",),
    "mirrormanager.#": (),
    "nagios.#": ("host_ack_author | account", "service_ack_author | account"),
    "nuancier.#": ("agent", "candidate.submitter"),
    "odcs.#": ("compose.owner",),
    "openqa.#": ("user",),
    "pagure.#": ("agent",),
    "pagure.git.receive": ("agent || commit.username || commit.email | account",),
    "pdc.#": (),
    "pkgdb.#": (
        "agent | somebody",
        "agent[0] | somebody",
        "username | somebody",
        "acl.fas_name | somebody",
    ),
    "planet.#": ("username",),
    "pungi.#": (),
    "rats.#": ("agent",),
    "releng.#": (),
    "resultsdb.#": (),
    "summershum.#": ("original.agent",),
    "taskotron.#": (),
    "trac.#": (
        "agent",
        "commit.username | commas",
        "page.author | commas",
        "ticket.cc | commas",
        "ticket.owner | commas",
        "ticket.reporter | commas",
    ),
    "waiverdb.#": ("username",),
    "wiki.#": ("user | lower || user_text | lower",),
    "zanata.#": (),
}

PACKAGES: dict[str, tuple[str, ...]] = {
    "anitya.project.flag": ("packages[distro=Fedora].package_name",),
    "anitya.project.map.new": ("message[distro=Fedora].new",),
    "anitya.project.map.update": ("message[distro=Fedora].new", "message[distro=Fedora].prev"),
    "anitya.project.version.update.#": (
        "message.packages[distro=Fedora].package_name",
        "packages[distro=Fedora].package_name",
    ),
    "bodhi.buildroot_override.#": (
        "override.build.nvr | builds || override.build | builds || override.nvr | builds",
    ),
    "bodhi.errata.#": ("update.builds[].nvr | build || update.title | builds",),
    "bodhi.masher.#": ("updates[] | builds",),
    "bodhi.stack.#": ("stack.packages[].name",),
    # The title of an update may be a sentence that somebody wrote: the builds are better.
    "bodhi.update.#": ("update.builds[].nvr | build || update.title | builds",),
    "bodhi.update.comment.#": (
        "comment.update.builds[].nvr | build || comment.update_title | builds",
    ),
    "bugzilla.#": ("bug.component | component", "bug.component.name | component"),
    "buildsys.build.state.change": ("name",),
    "buildsys.package.list.change": ("package",),
    "buildsys.rpm.sign": ("info.name || rpm.name",),
    "buildsys.tag": ("name",),
    "buildsys.untag": ("name",),
    "ci.*.test.*": ("artifact[type=koji-build].nvr | build",),
    "cnucnuweb.project.map.#": ("message[distro=Fedora].new", "message[distro=Fedora].prev"),
    "faf.#": ("components[]",),
    "fedoratagger.rating.#": ("rating.package.name",),
    "fedoratagger.tag.#": ("vote.tag.package", "vote.tag.package{}"),
    "fedoratagger.usage.#": ("package.name",),
    "git.branch.#": ("[namespace=rpms,rpms-checks?].name || ^topic | repository",),
    "git.lookaside.#": ("[namespace=rpms,rpms-checks?].name",),
    "git.pkgdb2branch.complete": ("branchedPackages[]", "unbranchedPackages[]"),
    # A push has the namespace in its commit, where the others have it beside the name.
    "git.receive.#": (
        (
            "[namespace=rpms,rpms-checks?].commit[namespace=rpms,rpms-checks?].repo"
            " || ^topic | repository"
        ),
    ),
    "greenwave.#": (
        "subject[type=koji_build].item | build",
        "[subject_type=koji_build].subject_identifier | build",
    ),
    "hotness.#": (
        "trigger.msg.message.packages[distro=Fedora].package_name",
        "trigger.msg.packages[distro=Fedora].package_name",
        "trigger.msg.package_listing.package.name",
        "trigger.msg.package.name",
        "trigger.msg[build_id].name",
    ),
    "kerneltest.#": ("=kernel",),
    "koschei.package.#": ("name",),
    "mdapi.#": ("packages[]", "differences{*}{*}[] | changed"),
    # Other namespaces hold containers and modules, whose names packages may have too.
    "pkgdb.#": (
        "[namespace=rpms?].package",
        "package[namespace=rpms?].name",
        "package_listing.package[namespace=rpms?].name",
        "package_listings[].package[namespace=rpms?].name",
        "acl.packagelist.package[namespace=rpms?].name",
        "info[pkg_namespace=rpms?].pkg_name",
        "action.info[pkg_namespace=rpms?].pkg_name",
        "action.package[namespace=rpms?].name",
    ),
    "resultsdb.#": (
        "data[type=koji_build].item | build",
        "data[type=koji_build].item[] | build",
        "task[type=koji_build].item | build",
    ),
    "summershum.#": ("original.name",),
    "taskotron.#": ("task[type=koji_build].item | build",),
}
