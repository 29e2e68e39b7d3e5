"""Shows the events of a team, or of all, as a dashboard does.

    subscriber.py NAME [TEAM]

Prints one line per event: sequence, team, type, job, and whether it came live
or, because it was missing, from the log.
"""
import itertools
import json
import os
import random
import sys
import time
import uuid
from datetime import datetime, timezone

import pika
from pika import exceptions

URLS = os.environ.get("COVIBES_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f").split()
PREFIX = os.environ.get("COVIBES_AMQP_PREFIX", "covibes")
NAME, TEAM = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
QUEUE = f"{PREFIX}.dashboard.{NAME}"
# Never reject-publish. Gone a day after the last dashboard of this name.
BOUNDS = {"x-max-length": int(os.environ.get("DASHBOARD_LENGTH", 10_000)),
          "x-overflow": "drop-head", "x-expires": 86_400_000}
last = {}  # team -> its last event


def read(connection, queue, arguments=None, fill=None):
    """Applies what a queue holds; with fill = (team, sequence) up to that one."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)
    patience = 5 if fill else None  # What the log no longer has, it never sends.
    for method, _, body in channel.consume(queue, arguments=arguments, inactivity_timeout=patience):
        if method is None:
            break
        event = json.loads(body)
        team, sequence = event["subject"], event.get("sequence", "")
        known = last.get(team, {}).get("sequence", "")
        wanted = team == fill[0] and sequence if fill else True
        # The dispatcher's own answers carry no sequence. The rest is a repeat
        # unless it is higher than what is shown.
        if wanted and (not sequence or sequence > known):
            before = event.get("prevsequence", "")
            if not fill and known and before > known:
                since = datetime.fromisoformat(last[team]["time"].replace("Z", "+00:00"))
                read(connection, f"{PREFIX}.events.log", {"x-stream-offset": since}, (team, before))
            origin = "log" if fill else "live"
            print(sequence or "-", team, event["type"], event.get("correlationid"), origin, flush=True)
            if sequence:
                last[team] = event
        channel.basic_ack(method.delivery_tag)
        if fill and last[fill[0]]["sequence"] >= fill[1]:
            break
    channel.close()


def listen(url):
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 10
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments=BOUNDS)
    channel.queue_bind(QUEUE, f"{PREFIX}.events", f"team.{TEAM or '*'}.#")
    if TEAM:  # A snapshot; whatever is told from now on is heard.
        job = {"schema": "covibes.job.v1", "job_id": str(uuid.uuid4()), "team_id": TEAM,
               "action": "status", "issued_at": datetime.now(timezone.utc).isoformat()}
        channel.basic_publish(f"{PREFIX}.jobs", f"team.{TEAM}.status", json.dumps(job).encode(),
                              pika.BasicProperties("application/json", message_id=job["job_id"]))
    read(connection, QUEUE)


for url in itertools.cycle(URLS):
    try:
        listen(url)
    except exceptions.AMQPError as error:
        print(f"no broker: {error!r}", file=sys.stderr, flush=True)
        time.sleep(random.uniform(0.2, 2))
