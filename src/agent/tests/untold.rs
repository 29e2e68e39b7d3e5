//! Ends of tasks of which nobody was told yet.

use super::*;

#[tokio::test]
async fn ends_that_nobody_was_told_outlive_their_outputs_and_a_restart() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..53 {
        let id = world.add(json!({"prompt": "work"})).await;
        world.reaches(&id, "succeeded").await;
        ids.push(id);
    }
    let world = world.again().await;
    let output = |id: &str| world.path(&format!("temp/tasks/{id}.jsonl"));
    let file = |id: &str| world.path(&format!("temp/tasks/{id}.json"));
    assert!(!output(&ids[2]).exists() && output(&ids[3]).exists());
    let list = world.client.get("/tasks").await.json();
    assert_eq!(list["tasks"].as_array().unwrap().len(), 50, "those that can be read");

    // Whoever follows hears of all of them, oldest first.
    let all = |text: &str| text.matches("\"state\":\"succeeded\"").count() == 53;
    let text = world.client.events("/events", all).await;
    let heard: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let heard: Vec<_> = heard.iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert_eq!(heard, ids);
    let oldest = world.task(&ids[0]).await;
    assert_eq!((&oldest["told"], &oldest["last_message"]), (&json!("nothing"), &json!("done")));
    assert_eq!((&oldest["events"], &oldest["truncated"]), (&json!(0), &json!(true)));

    for (fact, status) in [("started", 200), ("finished", 404)] {
        let path = format!("/tasks/{}/told", ids[0]);
        let told = world.client.post(&path, &json!({"fact": fact})).await;
        assert_eq!(told.status, 204, "{fact}");
        let left = world.client.get(&format!("/tasks/{}", ids[0])).await.status;
        assert_eq!(left.as_u16(), status, "{fact}");
    }
    assert!(!file(&ids[0]).exists() && file(&ids[1]).exists());
    world.end().await;
}
