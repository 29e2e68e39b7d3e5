//! `covibes doctor` on hosts that lack something.

use serde_json::Value;

use crate::compose::run;
use crate::place::Place;

async fn data_check(place: &Place) -> Value {
    let ended = place.run(&["doctor", "--json"]).await;
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == "paths.data").cloned().unwrap()
}

/// As in a container whose `paths.data` is no volume: installs would fail with `docker.failed`.
#[tokio::test]
async fn a_data_directory_that_holds_no_overlay_is_named_with_what_to_do() {
    let mut place = Place::unprepared();
    assert_eq!(data_check(&place).await["ok"], true);
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| place.directory(name));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    run(
        "mount",
        &[
            "-t".as_ref(),
            "overlay".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            "overlay".as_ref(),
            &merged,
        ],
    )
    .await;
    place.set("COVIBES_PATHS_DATA", merged.join("not/there/yet").to_str().unwrap());
    let check = data_check(&place).await;
    run("umount", &[&merged]).await;
    assert_eq!(check["ok"], false, "{check}");
    let detail = check["detail"].as_str().unwrap();
    for word in ["an overlay", "every install would fail", "set `paths.data`", "ext4"] {
        assert!(detail.contains(word), "{detail}");
    }
}

/// The rules are tried as a team would meet them; without nft there are none.
#[tokio::test]
async fn the_hosts_rules_are_tried_and_their_absence_is_named() {
    let place = Place::new().await;
    let check = async || {
        let ended = place.run(&["doctor", "--json"]).await;
        let said: Value = serde_json::from_str(&ended.stdout).unwrap();
        let checks = said["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == "host rules").cloned().unwrap()
    };
    let found = check().await;
    assert_eq!(found["ok"], true, "{found}");
    // In a network namespace there is neither our table nor the proxy.
    let binary = crate::place::COVIBES;
    let output = std::process::Command::new("unshare")
        .args(["--net", "--", binary, "doctor", "--json"])
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    let rules = checks.iter().find(|check| check["check"] == "host rules").unwrap();
    assert_eq!(rules["ok"], false, "{rules}");
    assert!(rules["detail"].as_str().unwrap().contains("`covibes host prepare`"), "{rules}");
}
