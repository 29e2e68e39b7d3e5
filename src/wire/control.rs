//! The JSON of what workers say to each other. It comes over a broker that
//! others may write to, so it is held to the same strictness as a job: bounded
//! before it is read, one meaning per text, no unknown field.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::json;
use super::text::cut;
use crate::domain::control::{CtlMessage, Heartbeat, Holding, HostOrder, Order, Room};
use crate::domain::ids::{HostId, TeamId};

/// A message over this size is not read: an inventory of [`TEAMS_MAX`] teams
/// fits.
pub const CONTROL_BYTES_MAX: usize = 512 * 1024;

/// Teams in an inventory at most: a host has 2,048 subnets, and a workspace may
/// be left of a team that has none.
const TEAMS_MAX: usize = 4096;

/// A record that moves. Whoever sends one leaves its oldest jobs out until it
/// fits; 4.x refuses messages over 16 MiB.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An order with a record in it: each of its bytes may need escaping.
const RECORD_ORDER_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX + 1024;

/// Characters of an answer that are kept.
const ANSWER_CHARS_MAX: usize = 1000;

/// A message that cannot be trusted, and why; nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a control message: {0}")]
pub struct Malformed(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomBody {
    teams: i64,
    memory_bytes: i64,
    cpu_millis: i64,
    disk_is_low: bool,
    jobs: u32,
    waiting: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldingBody {
    team: String,
    runs: bool,
    sequence: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum CtlBody {
    Ask {},
    Heartbeat { host: String, dispatches: bool, draining: bool, room: Option<RoomBody> },
    InventoryAsk { nonce: String },
    Inventory { nonce: String, host: String, teams: Vec<HoldingBody> },
    Forget { host: String },
    Moving { nonce: String, from: String, refusal: Option<String> },
    Answer { nonce: String, done: bool, message: String },
}

/// What a dashboard may say; all of it may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotBody {
    #[serde(default)]
    team: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum OrderBody {
    Nudge {},
    Fenced { team: String, host: String, nonce: String, is_empty: bool },
    Evict { host: String, nonce: String },
    Move { team: String, to: String, nonce: String },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum HostOrderBody {
    Fence { team: String, nonce: String },
    Vacate { nonce: String },
    Depart { team: String, to: String, nonce: String },
    Arrive { team: String, from: String, nonce: String, record: String },
    Leave { team: String, nonce: String },
}

/// The key under which dashboards ask for snapshots.
pub const SNAPSHOT_KEY: &str = "snapshot";

/// A message on `covibes.ctl` with its routing key.
#[must_use]
pub fn encode_ctl(message: &CtlMessage) -> (&'static str, String) {
    let (key, body) = match message {
        CtlMessage::Ask => ("ask", CtlBody::Ask {}),
        CtlMessage::Heartbeat(Heartbeat { host, dispatches, draining, room }) => (
            "heartbeat",
            CtlBody::Heartbeat {
                host: host.to_string(),
                dispatches: *dispatches,
                draining: *draining,
                room: room.map(room_body),
            },
        ),
        CtlMessage::InventoryAsk { nonce } => {
            ("inventory.ask", CtlBody::InventoryAsk { nonce: nonce.to_string() })
        }
        CtlMessage::Inventory { nonce, host, teams } => {
            let teams = teams.iter().take(TEAMS_MAX).map(|holding| HoldingBody {
                team: holding.team.to_string(),
                runs: holding.runs,
                sequence: holding.sequence,
            });
            let teams = teams.collect();
            (
                "inventory",
                CtlBody::Inventory { nonce: nonce.to_string(), host: host.to_string(), teams },
            )
        }
        CtlMessage::Snapshot { team } => {
            let body = match team {
                Some(team) => format!("{{\"team\":\"{team}\"}}"),
                None => "{}".to_owned(),
            };
            return (SNAPSHOT_KEY, body);
        }
        CtlMessage::Forget { host } => ("forget", CtlBody::Forget { host: host.to_string() }),
        CtlMessage::Moving { nonce, from, refusal } => {
            let refusal = refusal.as_ref().map(|refusal| cut(refusal, ANSWER_CHARS_MAX));
            let (nonce, from) = (nonce.to_string(), from.to_string());
            ("moving", CtlBody::Moving { nonce, from, refusal })
        }
        CtlMessage::Answer { nonce, done, message } => {
            let message = cut(message, ANSWER_CHARS_MAX);
            ("answer", CtlBody::Answer { nonce: nonce.to_string(), done: *done, message })
        }
    };
    (key, text(&body))
}

/// Reads a message on `covibes.ctl`.
///
/// # Errors
/// It is not one.
pub fn parse_ctl(key: &str, body: &[u8]) -> Result<CtlMessage, Malformed> {
    if key == SNAPSHOT_KEY {
        if body.is_empty() {
            return Ok(CtlMessage::Snapshot { team: None });
        }
        let SnapshotBody { team: raw } = read(body)?;
        return Ok(CtlMessage::Snapshot { team: raw.as_deref().map(team).transpose()? });
    }
    Ok(match read(body)? {
        CtlBody::Ask {} => CtlMessage::Ask,
        CtlBody::Heartbeat { host: raw, dispatches, draining, room } => {
            let room = room.map(|room| Room {
                teams: room.teams,
                memory_bytes: room.memory_bytes,
                cpu_millis: room.cpu_millis,
                disk_is_low: room.disk_is_low,
                jobs: room.jobs,
                waiting: room.waiting,
            });
            CtlMessage::Heartbeat(Heartbeat { host: host(&raw)?, dispatches, draining, room })
        }
        CtlBody::InventoryAsk { nonce: raw } => CtlMessage::InventoryAsk { nonce: nonce(&raw)? },
        CtlBody::Inventory { nonce: raw_nonce, host: raw, teams } => {
            if teams.len() > TEAMS_MAX {
                return Err(Malformed("more teams than a host can have".to_owned()));
            }
            let holding = |body: HoldingBody| {
                let HoldingBody { team: raw, runs, sequence } = body;
                Ok(Holding { team: team(&raw)?, runs, sequence })
            };
            let teams = teams.into_iter().map(holding).collect::<Result<_, Malformed>>()?;
            CtlMessage::Inventory { nonce: nonce(&raw_nonce)?, host: host(&raw)?, teams }
        }
        CtlBody::Forget { host: raw } => CtlMessage::Forget { host: host(&raw)? },
        CtlBody::Moving { nonce: raw, from, refusal } => {
            let refusal = refusal.map(|refusal| cut(&refusal, ANSWER_CHARS_MAX));
            CtlMessage::Moving { nonce: nonce(&raw)?, from: host(&from)?, refusal }
        }
        CtlBody::Answer { nonce: raw, done, message } => {
            let message = cut(&message, ANSWER_CHARS_MAX);
            CtlMessage::Answer { nonce: nonce(&raw)?, done, message }
        }
    })
}

/// An order for the dispatcher.
#[must_use]
pub fn encode_order(order: &Order) -> String {
    text(&match order {
        Order::Nudge => OrderBody::Nudge {},
        Order::Fenced { team, host, nonce, is_empty } => OrderBody::Fenced {
            team: team.to_string(),
            host: host.to_string(),
            nonce: nonce.to_string(),
            is_empty: *is_empty,
        },
        Order::Evict { host, nonce } => {
            OrderBody::Evict { host: host.to_string(), nonce: nonce.to_string() }
        }
        Order::Move { team, to, nonce } => {
            OrderBody::Move { team: team.to_string(), to: to.to_string(), nonce: nonce.to_string() }
        }
    })
}

/// Reads an order for the dispatcher.
///
/// # Errors
/// It is not one.
pub fn parse_order(body: &[u8]) -> Result<Order, Malformed> {
    Ok(match read(body)? {
        OrderBody::Nudge {} => Order::Nudge,
        OrderBody::Fenced { team: raw, host: raw_host, nonce: raw_nonce, is_empty } => {
            let (team, host, nonce) = (team(&raw)?, host(&raw_host)?, nonce(&raw_nonce)?);
            Order::Fenced { team, host, nonce, is_empty }
        }
        OrderBody::Evict { host: raw, nonce: raw_nonce } => {
            Order::Evict { host: host(&raw)?, nonce: nonce(&raw_nonce)? }
        }
        OrderBody::Move { team: raw, to, nonce: raw_nonce } => {
            Order::Move { team: team(&raw)?, to: host(&to)?, nonce: nonce(&raw_nonce)? }
        }
    })
}

/// An order for a host.
#[must_use]
pub fn encode_host_order(order: &HostOrder) -> String {
    text(&match order {
        HostOrder::Fence { team, nonce } => {
            HostOrderBody::Fence { team: team.to_string(), nonce: nonce.to_string() }
        }
        HostOrder::Vacate { nonce } => HostOrderBody::Vacate { nonce: nonce.to_string() },
        HostOrder::Depart { team, to, nonce } => HostOrderBody::Depart {
            team: team.to_string(),
            to: to.to_string(),
            nonce: nonce.to_string(),
        },
        HostOrder::Arrive { team, from, nonce, record } => HostOrderBody::Arrive {
            team: team.to_string(),
            from: from.to_string(),
            nonce: nonce.to_string(),
            record: record.clone(),
        },
        HostOrder::Leave { team, nonce } => {
            HostOrderBody::Leave { team: team.to_string(), nonce: nonce.to_string() }
        }
    })
}

/// Reads an order for a host.
///
/// # Errors
/// It is not one.
pub fn parse_host_order(body: &[u8]) -> Result<HostOrder, Malformed> {
    Ok(match read_at_most(body, RECORD_ORDER_BYTES_MAX)? {
        HostOrderBody::Fence { team: raw, nonce: raw_nonce } => {
            HostOrder::Fence { team: team(&raw)?, nonce: nonce(&raw_nonce)? }
        }
        HostOrderBody::Vacate { nonce: raw } => HostOrder::Vacate { nonce: nonce(&raw)? },
        HostOrderBody::Depart { team: raw, to, nonce: raw_nonce } => {
            HostOrder::Depart { team: team(&raw)?, to: host(&to)?, nonce: nonce(&raw_nonce)? }
        }
        HostOrderBody::Arrive { team: raw, from, nonce: raw_nonce, record } => {
            let (team, from, nonce) = (team(&raw)?, host(&from)?, nonce(&raw_nonce)?);
            HostOrder::Arrive { team, from, nonce, record }
        }
        HostOrderBody::Leave { team: raw, nonce: raw_nonce } => {
            HostOrder::Leave { team: team(&raw)?, nonce: nonce(&raw_nonce)? }
        }
    })
}

fn room_body(room: Room) -> RoomBody {
    let Room { teams, memory_bytes, cpu_millis, disk_is_low, jobs, waiting } = room;
    RoomBody { teams, memory_bytes, cpu_millis, disk_is_low, jobs, waiting }
}

fn text<T: Serialize>(body: &T) -> String {
    serde_json::to_string(body).expect("a control message holds strings, numbers and lists only")
}

fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Malformed> {
    read_at_most(body, CONTROL_BYTES_MAX)
}

fn read_at_most<'de, T: Deserialize<'de>>(body: &'de [u8], max: usize) -> Result<T, Malformed> {
    if body.len() > max {
        return Err(Malformed("it is too large".to_owned()));
    }
    json::look(body).map_err(Malformed)?;
    // Its own words could quote the message.
    serde_json::from_slice(body).map_err(|_| Malformed("it has another form".to_owned()))
}

fn team(raw: &str) -> Result<TeamId, Malformed> {
    TeamId::parse(raw).map_err(|error| Malformed(error.to_string()))
}

fn nonce(raw: &str) -> Result<Uuid, Malformed> {
    Uuid::try_parse(raw).map_err(|_| Malformed("its nonce is no UUID".to_owned()))
}

fn host(raw: &str) -> Result<HostId, Malformed> {
    HostId::parse(raw).map_err(|error| Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: &str) -> HostId {
        HostId::parse(raw).unwrap()
    }

    fn a_team() -> TeamId {
        TeamId::parse("team_alpha").unwrap()
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let nonce = Uuid::from_u128(7);
        let room = Room {
            teams: 3,
            memory_bytes: -5,
            cpu_millis: 1500,
            disk_is_low: true,
            jobs: 2,
            waiting: 200,
        };
        let heartbeat =
            |room| Heartbeat { host: id("h1"), dispatches: true, draining: false, room };
        let teams = vec![Holding { team: a_team(), runs: true, sequence: u64::MAX }];
        for message in [
            CtlMessage::Ask,
            CtlMessage::Heartbeat(heartbeat(Some(room))),
            CtlMessage::Heartbeat(heartbeat(None)),
            CtlMessage::InventoryAsk { nonce },
            CtlMessage::Inventory { nonce, host: id("h1"), teams },
            CtlMessage::Snapshot { team: Some(a_team()) },
            CtlMessage::Snapshot { team: None },
            CtlMessage::Forget { host: id("h1") },
            CtlMessage::Moving { nonce, from: id("h1"), refusal: None },
            CtlMessage::Moving { nonce, from: id("h1"), refusal: Some("it \"runs\"".to_owned()) },
            CtlMessage::Answer { nonce, done: true, message: "as \"it\" was".to_owned() },
        ] {
            let (key, body) = encode_ctl(&message);
            assert_eq!(parse_ctl(key, body.as_bytes()), Ok(message), "{body}");
        }
        for order in [
            Order::Nudge,
            Order::Fenced { team: a_team(), host: id("h1"), nonce, is_empty: true },
            Order::Evict { host: id("h1"), nonce },
            Order::Move { team: a_team(), to: id("h1"), nonce },
        ] {
            assert_eq!(parse_order(encode_order(&order).as_bytes()), Ok(order));
        }
        let record = "{\n \"team\": \"é\" }\n".to_owned();
        for order in [
            HostOrder::Fence { team: a_team(), nonce },
            HostOrder::Vacate { nonce },
            HostOrder::Depart { team: a_team(), to: id("h2"), nonce },
            HostOrder::Arrive { team: a_team(), from: id("h1"), nonce, record },
            HostOrder::Leave { team: a_team(), nonce },
        ] {
            assert_eq!(parse_host_order(encode_host_order(&order).as_bytes()), Ok(order));
        }
    }

    #[test]
    fn the_largest_inventory_fits() {
        let team = TeamId::parse(&"a".repeat(40)).unwrap();
        let holding = Holding { team, runs: false, sequence: u64::MAX };
        let teams = vec![holding; TEAMS_MAX];
        let message =
            CtlMessage::Inventory { nonce: Uuid::from_u128(1), host: id(&"h".repeat(40)), teams };
        let (key, body) = encode_ctl(&message);
        assert!(body.len() <= CONTROL_BYTES_MAX, "{}", body.len());
        assert_eq!(parse_ctl(key, body.as_bytes()), Ok(message));
    }

    #[test]
    fn whatever_else_comes_is_refused_without_repeating_it() {
        let large = vec![b' '; RECORD_ORDER_BYTES_MAX + 1];
        let bad: [&[u8]; 12] = [
            b"",
            b"null",
            b"[]",
            b"\xff",
            b"{\"kind\":\"sing\"}",
            b"{\"kind\":\"ask\",\"secret\":1}",
            b"{\"kind\":\"ask\",\"kind\":\"ask\"}",
            b"{\"kind\":\"forget\",\"host\":\"../secret\"}",
            b"{\"kind\":\"forget\"}",
            b"{\"kind\":\"fence\",\"team\":\"secret%2f\",\"nonce\":\"00000000-0000-0000-0000-000000000001\"}",
            b"{\"kind\":\"heartbeat\",\"host\":\"h\",\"dispatches\":1,\"draining\":false,\"room\":null}",
            &large,
        ];
        for body in bad {
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            for error in
                [parse_ctl("x", body).err(), parse_order(body).err(), parse_host_order(body).err()]
            {
                let error = error.unwrap_or_else(|| panic!("{shown}")).to_string();
                assert!(!error.contains("secret"), "{error}");
            }
        }
        assert!(parse_ctl(SNAPSHOT_KEY, b"{\"team\":\"A\"}").is_err());
        assert!(parse_ctl(SNAPSHOT_KEY, b"{\"team\":\"a\",\"x\":1}").is_err());
        assert_eq!(parse_ctl(SNAPSHOT_KEY, b""), Ok(CtlMessage::Snapshot { team: None }));
    }
}
