//! `schemas/asyncapi.yaml`: what travels where, for people and tools that
//! publish jobs or follow events.
//!
//! Written as text, since no dependency writes YAML in a stable order; the
//! names that occur in code are taken from it.

use std::fmt::Write as _;

use super::event::{EVENT_BYTES_MAX, EVENT_CONTENT_TYPE};
use super::event_body::KINDS;
use super::job::JOB_BYTES_MAX;
use crate::domain::ids::TeamId;
use crate::domain::job::ActionKind;

/// The document.
pub(crate) fn document() -> String {
    let mut actions = String::new();
    for action in ActionKind::ALL {
        // Writing to a String cannot fail.
        let _ = write!(actions, "\n          - {}", action.as_str());
    }
    let mut types = String::new();
    for type_name in KINDS.iter().flat_map(|kind| kind.types) {
        let _ = write!(types, "\n          - {type_name}");
    }
    TEMPLATE
        .replace("{ACTIONS}", &actions)
        .replace("{TYPES}", &types)
        .replace("{TEAM_PATTERN}", TeamId::PATTERN)
        .replace("{JOB_KIB}", &(JOB_BYTES_MAX / 1024).to_string())
        .replace("{EVENT_KIB}", &(EVENT_BYTES_MAX / 1024).to_string())
        .replace("{EVENT_CONTENT_TYPE}", EVENT_CONTENT_TYPE)
}

const TEMPLATE: &str = r"# Generated from src/wire by `COVIBES_BLESS=1 cargo test --test schemas`. Do not edit.
asyncapi: 3.0.0
info:
  title: Covibes
  version: 1.0.0
  description: |-
    Covibes runs team environments on Docker hosts. Publish a job, follow the events
    of its team. The order of a team's jobs is the order in which the broker took them.
  license:
    name: Apache-2.0
    url: https://www.apache.org/licenses/LICENSE-2.0
defaultContentType: application/json
channels:
  jobs:
    title: Jobs
    address: team.{team}.{action}
    description: |-
      Producers publish here, mandatory and with publisher confirms. The routing key
      must agree with the body. If `reply_to` is set, the job's final event is also sent
      to that queue, with the job's id as correlation id.
    parameters:
      team:
        description: The team's id, matching {TEAM_PATTERN} and without two hyphens in a row.
      action:
        description: What is asked for.
        enum:{ACTIONS}
    messages:
      job:
        $ref: '#/components/messages/job'
    bindings:
      amqp:
        is: routingKey
        exchange:
          name: covibes.jobs
          type: topic
          durable: true
          autoDelete: false
          vhost: /
        bindingVersion: 0.3.0
  events:
    title: Status events
    address: '{scope}.{name}.{type}'
    description: |-
      Bind a queue of your own, ask for a snapshot with a status job, then apply events
      with a higher sequence. The stream covibes.events.log keeps seven days of them.
    parameters:
      scope:
        description: Whether the event is about a team or a host.
        enum:
          - team
          - host
      name:
        description: The team's or the host's id.
      type:
        description: The event's type without its leading `covibes.`; it holds one more dot.
        enum:{TYPES}
    messages:
      event:
        $ref: '#/components/messages/event'
    bindings:
      amqp:
        is: routingKey
        exchange:
          name: covibes.events
          type: topic
          durable: true
          autoDelete: false
          vhost: /
        bindingVersion: 0.3.0
  dlq:
    title: Dead letters
    address: covibes.dlq
    description: |-
      Jobs that were refused or that failed, as they came. `covibes dlq` lists, shows,
      requeues and drops them.
    messages:
      deadLetter:
        $ref: '#/components/messages/deadLetter'
    bindings:
      amqp:
        is: queue
        queue:
          name: covibes.dlq
          durable: true
          exclusive: false
          autoDelete: false
          vhost: /
        bindingVersion: 0.3.0
  snapshots:
    title: Requests for snapshots
    address: snapshot
    description: |-
      Publish here to have every worker tell covibes.team.snapshot of one team, or of all
      of its teams with an empty body. Nothing is kept: without workers nobody answers.
    messages:
      snapshotRequest:
        $ref: '#/components/messages/snapshotRequest'
    bindings:
      amqp:
        is: routingKey
        exchange:
          name: covibes.ctl
          type: topic
          durable: true
          autoDelete: false
          vhost: /
        bindingVersion: 0.3.0
operations:
  receiveSnapshotRequest:
    action: receive
    channel:
      $ref: '#/channels/snapshots'
    summary: The worker tells snapshots of its teams.
    messages:
      - $ref: '#/channels/snapshots/messages/snapshotRequest'
  receiveJob:
    action: receive
    channel:
      $ref: '#/channels/jobs'
    summary: The worker takes a job on.
    messages:
      - $ref: '#/channels/jobs/messages/job'
    bindings:
      amqp:
        deliveryMode: 2
        mandatory: true
        ack: true
        bindingVersion: 0.3.0
  sendEvent:
    action: send
    channel:
      $ref: '#/channels/events'
    summary: The worker tells a fact.
    messages:
      - $ref: '#/channels/events/messages/event'
    bindings:
      amqp:
        deliveryMode: 2
        bindingVersion: 0.3.0
  sendDeadLetter:
    action: send
    channel:
      $ref: '#/channels/dlq'
    summary: The worker puts a job aside.
    messages:
      - $ref: '#/channels/dlq/messages/deadLetter'
    bindings:
      amqp:
        deliveryMode: 2
        bindingVersion: 0.3.0
components:
  messages:
    job:
      name: job
      title: Job
      summary: Asks for something to be done to a team's environment; at most {JOB_KIB} KiB.
      contentType: application/json
      correlationId:
        description: Every event of the job carries it as correlationid.
        location: $message.payload#/job_id
      headers:
        type: object
        properties:
          traceparent:
            type: string
            description: W3C trace context, passed on to events.
          tracestate:
            type: string
      payload:
        schemaFormat: application/schema+json;version=2020-12
        schema:
          $ref: ./job.v1.json
      bindings:
        amqp:
          messageType: covibes.job.v1
          bindingVersion: 0.3.0
    event:
      name: event
      title: Event
      summary: A fact in CloudEvents 1.0, structured mode; at most {EVENT_KIB} KiB.
      contentType: {EVENT_CONTENT_TYPE}
      correlationId:
        description: The id of the job it belongs to.
        location: $message.payload#/correlationid
      payload:
        schemaFormat: application/schema+json;version=2020-12
        schema:
          $ref: ./event.v1.json
      bindings:
        amqp:
          messageType: covibes.event.v1
          bindingVersion: 0.3.0
    snapshotRequest:
      name: snapshotRequest
      title: Request for snapshots
      summary: Asks for snapshots of one team, or of all.
      contentType: application/json
      payload:
        type: object
        additionalProperties: false
        properties:
          team:
            type: string
            pattern: '{TEAM_PATTERN}'
            description: The team; all of them if absent.
    deadLetter:
      name: deadLetter
      title: Dead letter
      summary: A job as it came, which may be anything; the reason stands in the headers.
      headers:
        type: object
        required:
          - covibes-reason
        properties:
          covibes-reason:
            type: string
            description: The failure's code.
          covibes-message:
            type: string
            description: One sentence for people.
          covibes-attempts:
            type: integer
            description: How often it was tried.
          covibes-host:
            type: string
            description: Which host put it aside.
          covibes-step:
            type: string
            description: The last step that began.
      payload: true
";
