//! A disk that is full, slowly and at once, under a running server: new events are refused, the process stays, `ops` is told once, and it
//! goes on by itself when there is room again.

use std::path::Path;

use serde_json::json;

use crate::harness::{Server, TestSite, eventually};
use crate::image::Image;

/// Takes all the room there is, up to what is left free.
fn fill(path: &Path, left: u64) {
    let disk = rustix::fs::statvfs(path).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    let file = std::fs::File::create(path.join("filler")).unwrap();
    let length = free.saturating_sub(left);
    // What cannot be had at once is written until the disk says no.
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length.max(1)).is_err() || left == 0 {
        let mut file = file;
        while std::io::Write::write_all(&mut file, &[0x5a; 16_384]).is_ok() {}
    }
}

async fn text(server: &Server, path: &str) -> (u16, String) {
    let request = reqwest::Client::new().get(format!("{}{path}", server.url)).bearer_auth(&server.token);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn a_full_disk_refuses_events_and_loses_none() {
    let image = match Image::new(160) {
        Ok(image) => image,
        Err(why) => {
            println!("SKIPPED: no file system can be made here: {why}");
            return;
        }
    };
    let mounted = image.path("mounted");
    let mounted = Path::new(&mounted);
    let site = TestSite::new();
    std::fs::create_dir(mounted.join("data")).unwrap();
    std::os::unix::fs::symlink(mounted.join("data"), site.path().join("data")).unwrap();
    let server = Server::start(&site).await;
    let mut taken: Vec<String> = Vec::new();
    let mut refused = 0;
    let body = json!({"text": "x".repeat(20_000)}).to_string();
    let rounds = [("slowly", 8 << 20), ("at once", 0), ("at once, again", 0)];
    for (how, left) in rounds {
        let (status, answer) = server.webhook("generic", body.clone()).await;
        assert_eq!(status, 202, "{how}: {answer}");
        taken.push(answer["events"][0]["id"].as_str().unwrap().to_string());
        fill(mounted, left);
        // Under load until it is refused.
        let answer = loop {
            let (status, answer) = server.webhook("generic", body.clone()).await;
            if status == 503 {
                break answer;
            }
            assert_eq!(status, 202, "{how}: {answer}");
            taken.push(answer["events"][0]["id"].as_str().unwrap().to_string());
        };
        refused += 1;
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("disk"), "{how}: {answer}");
        assert_eq!(answer["reason"], "store_unavailable", "{how}: {answer}");
        let (status, why) = text(&server, "/readyz").await;
        assert!(status == 503 && why.contains("disk"), "{how}: {status} {why}");
        eventually("the metric", || async { text(&server, "/metrics").await.1.contains("signalman_store_healthy 0").then_some(()) }).await;
        assert_eq!(text(&server, "/healthz").await.0, 200, "{how}: the process is up");
        std::fs::remove_file(mounted.join("filler")).unwrap();
        let again = eventually("events to be taken again", || async {
            let (status, answer) = server.webhook("generic", body.clone()).await;
            (status == 202).then_some(answer)
        })
        .await;
        taken.push(again["events"][0]["id"].as_str().unwrap().to_string());
        eventually("it to be ready", || async { (text(&server, "/readyz").await.0 == 200).then_some(()) }).await;
    }
    let told = server.messages().await.iter().filter(|(_, text)| text.contains("New events are refused")).count();
    assert_eq!(told, 1, "ops is told once, not each time: {}", server.log());
    server.kill();
    let server = Server::start(&site).await;
    for id in &taken {
        assert_eq!(server.get(&format!("/api/v1/events/{id}")).await.0, 200, "event {id} was acknowledged");
    }
    assert!(!server.log().contains("panic"), "{}", server.log());
    println!("{} fillings: {} events acknowledged, {refused} refusals looked at, lost 0", rounds.len(), taken.len());
    server.kill();
}
