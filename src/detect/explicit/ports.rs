//! Ports that no dev server of an app listens on: databases, brokers, debuggers, mail.

/// Well-known services of others, which compose files and editors name beside the app's own.
const OTHERS: &[u16] = &[
    22, 25, 465, 587, // shells and mail
    1025, 1080, 1433, 1521, 2181, 2375, 2376, 2379, 3306, 3307, 4222, 4317, 4318, 5005, 5050, 5432,
    5433, 5434, 5555, 5671, 5672, 5678, 6006, 6333, 6379, 6380, 6831, 7233, 7474, 7687, 8025, 8126,
    8983, 9042, 9092, 9121, 9187, 9200, 9222, 9229, 9230, 9231, 9300, 9411, 11211, 11434, 15672,
    16686, 24678, 26257, 27017, 27018, 28015, 33060, 35729, 50051,
];

/// Words in a label that mean something else than the app's page.
const LABELS: &[&str] = &[
    "database",
    "postgres",
    "mysql",
    "maria",
    "mongo",
    "redis",
    "debug",
    "inspector",
    "adminer",
    "pgadmin",
    "mail",
    "rabbit",
    "kafka",
    "storybook",
    "grafana",
    "prometheus",
    "livereload",
    "hmr",
];

/// Variables by which servers are told their port.
const VARIABLES: [&str; 5] = ["PORT", "FLASK_RUN_PORT", "UVICORN_PORT", "NUXT_PORT", "SERVER_PORT"];

/// The port that a variable names.
pub(super) fn set_by<'v>(value: impl Fn(&str) -> Option<&'v str>) -> Option<u16> {
    VARIABLES.iter().find_map(|name| number(value(name)?))
}

/// Whether an app may be asked for its page there.
pub(super) fn may_be_app(port: u16) -> bool {
    port != 0 && !OTHERS.contains(&port)
}

/// Whether a label names something else than the app.
pub(super) fn names_other(label: &str) -> bool {
    let label = label.to_ascii_lowercase();
    LABELS.iter().any(|word| label.contains(word)) || label == "db"
}

/// Reads a port number.
pub(super) fn number(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port != 0)
}
