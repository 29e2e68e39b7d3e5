"""Publishes start and stop jobs, one after the other, as an upstream service does.

    publisher.py start:team_alpha=spec.json stop:team_alpha

Prints the id of each job once the broker has it. A job is published again with
the same id until then, and only then comes the next one.
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
EXCHANGE = os.environ.get("COVIBES_AMQP_PREFIX", "covibes") + ".jobs"
NEXT_URL = itertools.cycle(URLS)
# A wrong password, vhost or permission stays wrong.
REFUSED = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)


def connect():
    """A channel with confirms at the first node that answers."""
    for attempt in itertools.count():
        parameters = pika.URLParameters(next(NEXT_URL))
        parameters.heartbeat = 10
        parameters.socket_timeout = 5
        parameters.blocked_connection_timeout = 60
        try:
            channel = pika.BlockingConnection(parameters).channel()
            channel.confirm_delivery()
            return channel
        except REFUSED:
            raise
        except exceptions.AMQPError as error:
            print(f"no broker: {error!r}", file=sys.stderr)
            time.sleep(random.uniform(0.1, min(5, 0.2 * 2**attempt)))


def main():
    channel = connect()
    for argument in sys.argv[1:]:
        action, _, target = argument.partition(":")
        team, _, spec = target.partition("=")
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        job = {"schema": "covibes.job.v1", "job_id": str(uuid.uuid4()), "team_id": team,
               "action": action, "issued_at": now.replace("+00:00", "Z")}
        if action == "start":
            job["spec"] = json.load(open(spec)) if spec else {"workspace": {"local": True}}
        properties = pika.BasicProperties(
            content_type="application/json", message_id=job["job_id"], delivery_mode=2)
        while True:
            try:
                channel.basic_publish(EXCHANGE, f"team.{team}.{action}", json.dumps(job).encode(),
                                      properties, mandatory=True)
                break
            except (exceptions.UnroutableError, exceptions.ChannelClosedByBroker) as error:
                sys.exit(f"{EXCHANGE} takes no jobs ({error}): has a worker ever run here?")
            except exceptions.NackError:  # The queue is full.
                time.sleep(1)
            except exceptions.AMQPError as error:
                print(f"not confirmed, again: {error!r}", file=sys.stderr)
                channel = connect()
        print(job["job_id"], flush=True)


main()
