# The bus: fedmsg's own keys, here for a development machine. In production they are in fedmsg's
# files in /etc/fedmsg.d/.
config = {
    "topic_prefix": "org.fedoraproject",
    "environment": "dev",
    # The addresses at which services publish; the hub connects to each of them.
    "endpoints": {"development": ["tcp://127.0.0.1:4001"]},
    "zmq_enabled": True,
    "zmq_strict": False,
    # The hub only listens, but moksha insists on the key.
    "zmq_publish_endpoints": "",
    "high_water_mark": 0,
    "io_threads": 1,
    "post_init_sleep": 0.2,
    # Messages of a development bus are not signed.
    "sign_messages": False,
    "validate_signatures": False,
}
