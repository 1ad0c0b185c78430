//! A real Prometheus with a rule that fires and a real Alertmanager drive alert → rule → action → chat, and the resolve too. The same
//! Prometheus is asked by a sensor.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use crate::harness::{Server, Target, TestSite, copy_folder, eventually, repository};

/// A process of Debian's packages, ended when dropped.
struct Service(Child);

impl Service {
    /// Starts a program, or says aloud that it is missing.
    fn start(program: &str, folder: &Path, arguments: &[&str]) -> Option<Self> {
        let log = std::fs::File::create(folder.join(format!("{program}.log"))).unwrap();
        let started = Command::new(program).args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(log).spawn();
        match started {
            Ok(child) => Some(Self(child)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                assert!(std::env::var_os("CI").is_none(), "{program} is not installed; `make test` installs it");
                println!("SKIPPED: {program} is not installed; `make test` installs it");
                None
            }
            Err(error) => panic!("{program} cannot be started: {error}"),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus of its own.
struct Prometheus {
    port: u16,
    _process: Service,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// One that scrapes a target every second; nothing where there is none.
    fn scraping(target: &Target) -> Option<Self> {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let settings = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: app, static_configs: [{{targets: [\"{}\"]}}]}}]\n",
            target.url.trim_start_matches("http://")
        );
        std::fs::write(folder.path().join("prometheus.yml"), settings).unwrap();
        let address = format!("--web.listen-address=127.0.0.1:{port}");
        let arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=prom", &address];
        let process = Service::start("prometheus", folder.path(), &arguments)?;
        Some(Self { port, _process: process, _folder: folder })
    }
}

/// A port that nobody uses now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_and_alertmanager_drive_the_sample_rules() {
    let scheduler = Target::answering(200, "{}").await;
    let site = TestSite::new();
    copy_folder(&repository().join("rules"), &site.path().join("rules"));
    let settings = std::fs::read_to_string(repository().join("signalman.yaml")).unwrap();
    let settings = settings.replace("listen: 127.0.0.1:8420", "listen: 127.0.0.1:0");
    let site = site.file("signalman.yaml", &settings.replace("http://127.0.0.1:8420/api/v1/webhooks/generic", &scheduler.url));
    let server = Server::start(&site).await;

    // What Prometheus scrapes: an app that is down, and then is up again.
    let up = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&up);
    let app = Target::with(move |_| (200, format!("app_up {}\n", u8::from(state.load(Ordering::SeqCst))))).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let (alertmanager_port, prometheus_port) = (free_port(), free_port());
    write(
        "alertmanager.yml",
        format!(
            "route: {{receiver: signalman, group_wait: 0s, group_interval: 1s, repeat_interval: 1m, group_by: [alertname]}}\n\
             receivers:\n- name: signalman\n  webhook_configs:\n  - url: {}/api/v1/webhooks/alertmanager\n    send_resolved: true\n",
            server.url
        ),
    );
    write(
        "prometheus.yml",
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: [\"127.0.0.1:{alertmanager_port}\"]}}]}}]}}\n\
             scrape_configs: [{{job_name: app, static_configs: [{{targets: [\"{}\"]}}]}}]\n",
            app.url.trim_start_matches("http://")
        ),
    );
    write(
        "rules.yml",
        "groups:\n- name: app\n  rules:\n  - alert: AppDown\n    expr: app_up == 0\n    labels: {app: bike-unlock, severity: page, restart: auto}\n    annotations: {summary: \"app_up is {{ $value }}\"}\n".into(),
    );
    let alertmanager = Service::start(
        "prometheus-alertmanager",
        folder.path(),
        &[
            "--config.file=alertmanager.yml",
            "--storage.path=am",
            &format!("--web.listen-address=127.0.0.1:{alertmanager_port}"),
            "--cluster.listen-address=",
        ],
    );
    let prometheus = Service::start(
        "prometheus",
        folder.path(),
        &["--config.file=prometheus.yml", "--storage.tsdb.path=prom", &format!("--web.listen-address=127.0.0.1:{prometheus_port}")],
    );
    let (Some(_alertmanager), Some(_prometheus)) = (alertmanager, prometheus) else { return };

    let said = |beginning: &'static str| {
        let server = &server;
        async move {
            let messages = server.messages().await;
            messages.into_iter().find(|(_, text)| text.starts_with(beginning)).map(|(_, text)| text)
        }
    };
    let firing = eventually("the message about the alert", || said("🔥 AppDown firing · page · bike-unlock")).await;
    assert!(
        firing.contains("app_up is 0") && firing.contains("[Kibana](") && firing.contains("[Grafana](") && firing.contains("[Query]("),
        "{firing}"
    );
    eventually("the message about the restart", || said("✅ `alertmanager.restart` succeeded")).await;
    up.store(true, Ordering::SeqCst);
    eventually("the message about the resolve", || said("✅ AppDown resolved · page · bike-unlock")).await;
    assert_eq!(scheduler.received().len(), 1, "one firing, one restart: {:?}", scheduler.received());
    let firings = server.messages().await.iter().filter(|(_, text)| text.starts_with("🔥")).count();
    assert_eq!(firings, 1, "however often Alertmanager repeats it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_sensor_follows_what_prometheus_scrapes() {
    // What Prometheus scrapes: two apps, until one is gone.
    let (qps, blog) = (Arc::new(AtomicU64::new(10)), Arc::new(AtomicBool::new(true)));
    let (requests, there) = (Arc::clone(&qps), Arc::clone(&blog));
    let app = Target::with(move |_| {
        let shop = format!(
            "app_cpu{{app=\"shop\",pod=\"a\"}} 30\napp_cpu{{app=\"shop\",pod=\"b\"}} 50\napp_qps{{app=\"shop\"}} {}\n",
            requests.load(Ordering::SeqCst)
        );
        let blog = if there.load(Ordering::SeqCst) { "app_cpu{app=\"blog\",pod=\"c\"} NaN\n" } else { "" };
        (200, shop + blog)
    })
    .await;
    let Some(prometheus) = Prometheus::scraping(&app) else { return };
    let port = prometheus.port;
    let sensor = format!(
        "kind: prometheus\ntrigger: prometheus.sample\nsettings:\n  url: http://127.0.0.1:{port}\n  every: 1s\n  name: load\n  join: [app]\n  \
         queries:\n    cpu: avg by (app) (app_cpu)\n    qps: app_qps\n    apps: scalar(count(count by (app) (app_cpu)))\n"
    );
    let rule = "trigger: {type: prometheus.sample, parameters: {query: load}}\n\
                criteria: {trigger.values.qps: {type: greaterthan, pattern: 1000}}\n\
                action: {ref: core.echo, parameters: {text: \"{{trigger.labels.app}}\"}}\n";
    let site = TestSite::new().file("packs/prometheus/sensors/load.yaml", &sensor).file("rules/busy.yaml", rule);
    let server = Server::start(&site).await;
    let payloads = |trigger: &'static str| {
        let server = &server;
        async move {
            let (_, answer) = server.get(&format!("/api/v1/events?limit=1000&trigger={trigger}")).await;
            answer["events"].as_array().unwrap().iter().map(|event| event["event"]["payload"].clone()).collect::<Vec<_>>()
        }
    };
    let sample = |app: &'static str, qps: Option<f64>| {
        let samples = payloads("prometheus.sample");
        async move {
            let samples = samples.await;
            samples.into_iter().find(|sample| sample["labels"] == json!({"app": app}) && sample["values"]["qps"].as_f64() == qps)
        }
    };
    let shop = eventually("the joined values of the shop", || sample("shop", Some(10.0))).await;
    assert_eq!((&shop["query"], &shop["values"]), (&json!("load"), &json!({"cpu": 40.0, "qps": 10.0, "apps": 2.0})));
    let other = eventually("the values of the blog", || sample("blog", None)).await;
    assert_eq!((&other["values"], &other["special"]), (&json!({"apps": 2.0}), &json!({"cpu": "NaN"})));
    qps.store(2_000, Ordering::SeqCst);
    eventually("the rule to run", || async {
        let (_, answer) = server.get("/api/v1/executions").await;
        answer["executions"].as_array().unwrap().iter().any(|execution| execution["parameters"]["text"] == "shop").then_some(())
    })
    .await;
    blog.store(false, Ordering::SeqCst);
    let absent = eventually("the absence", || async { payloads("prometheus.absent").await.pop() }).await;
    assert_eq!((&absent["query"], &absent["labels"]), (&json!("load"), &json!({"app": "blog"})));
    // Three more polls, and it is still told once.
    let (_, before) = server.get("/api/v1/sensors/prometheus.load").await;
    eventually("more polls", || async {
        let (_, now) = server.get("/api/v1/sensors/prometheus.load").await;
        (now["polls"].as_u64() >= before["polls"].as_u64().map(|polls| polls + 3)).then_some(())
    })
    .await;
    assert_eq!(payloads("prometheus.absent").await.len(), 1);
    let (_, sensor) = server.get("/api/v1/sensors/prometheus.load").await;
    assert_eq!((&sensor["state"], &sensor["down_since"]), (&json!("healthy"), &json!(null)), "{sensor}");
}

/// The rule as the page of formats has it, but for the action.
const TWO_OF_THREE: &str = r#"description: Two of three signals high, three polls in a row, per app
trigger: {type: prometheus.sample, parameters: {query: app_load}}
criteria:
  trigger.values.cpu:    {type: greaterthan, pattern: 80}
  trigger.values.memory: {type: greaterthan, pattern: 80}
  trigger.values.qps:    {type: greaterthan, pattern: 1500}
at_least: 2
when: <% trigger?.labels?.env == "prod" %>
window: {count: 3, within: 5m, by: "{{trigger.labels.app}}", consecutive: true}
throttle: {once_per: 15m, by: "{{trigger.labels.app}}"}
action:
  ref: t.scale
  parameters:
    app: "{{trigger.labels.app}}"
    by: "<% max(1, (trigger.values.qps / 1500.0).ceiling().to_int()) %>"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_signals_high_three_polls_in_a_row_scale_out_once() {
    // What Prometheus scrapes: cpu, memory and requests of an app, and of one that is as busy and not in production.
    let signals: Arc<[AtomicU64; 3]> = Arc::new([20, 30, 100].map(AtomicU64::new));
    let scraped = Arc::clone(&signals);
    let app = Target::with(move |_| {
        let value = |index: usize| scraped[index].load(Ordering::SeqCst);
        let of = |app: &str, env: &str| {
            let labels = format!("{{app=\"{app}\",env=\"{env}\"}}");
            format!("app_cpu{labels} {}\napp_memory{labels} {}\napp_qps{labels} {}\n", value(0), value(1), value(2))
        };
        (200, [of("shop", "prod"), of("trial", "gray")].concat())
    })
    .await;
    let Some(prometheus) = Prometheus::scraping(&app) else { return };
    let sensor = format!(
        "kind: prometheus\ntrigger: prometheus.sample\nsettings:\n  url: http://127.0.0.1:{}\n  every: 1s\n  name: app_load\n  \
         join: [app, env]\n  queries: {{cpu: app_cpu, memory: app_memory, qps: app_qps}}\n",
        prometheus.port
    );
    let site = TestSite::new()
        .file("packs/prometheus/sensors/load.yaml", &sensor)
        .file("packs/t/pack.yaml", "ref: t\n")
        .file("packs/t/actions/scale.yaml", "runner_type: noop\nparameters: {app: {type: string, required: true}, by: {type: integer}}\n")
        .file("rules/scale_out_on_load.yaml", TWO_OF_THREE);
    let server = Server::start(&site).await;
    let polls = |more: u64| {
        let server = &server;
        async move {
            let polls = || async { server.get("/api/v1/sensors/prometheus.load").await.1["polls"].as_u64().unwrap_or(0) };
            let until = polls().await + more;
            eventually("more polls", || async { (polls().await >= until).then_some(()) }).await;
        }
    };
    let ran = || async {
        let (_, answer) = server.get("/api/v1/executions").await;
        answer["executions"].as_array().unwrap().clone()
    };
    eventually("the first sample", || async {
        let (_, answer) = server.get("/api/v1/events?trigger=prometheus.sample").await;
        (!answer["events"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    // One of three is high for as long as it likes.
    signals[0].store(91, Ordering::SeqCst);
    polls(4).await;
    assert_eq!(ran().await, [] as [serde_json::Value; 0]);
    signals[1].store(85, Ordering::SeqCst);
    signals[2].store(1_600, Ordering::SeqCst);
    let found = eventually("the app to be scaled out", || async { Some(ran().await).filter(|ran| !ran.is_empty()) }).await;
    polls(5).await;
    let all = ran().await;
    assert_eq!(all.len(), 1, "once, though it stays high: {all:?}");
    assert_eq!(found[0]["parameters"], json!({"app": "shop", "by": 2}), "{found:?}");
    // Why it is not scaled out again is kept with each event, and the event that did it says so.
    let event = found[0]["event"].as_str().unwrap();
    let (_, why) = server.get(&format!("/api/v1/rules/default.scale_out_on_load/why/{event}")).await;
    assert_eq!((&why["matched"], &why["reason"], &why["execution"]["id"]), (&json!(true), &json!("matched"), &found[0]["id"]), "{why}");
    let (_, answer) = server.get("/api/v1/events?limit=1000&trigger=prometheus.sample").await;
    let reasons = |app: &str| {
        let of_app = answer["events"].as_array().unwrap().iter().filter(|event| event["event"]["payload"]["labels"]["app"] == app);
        of_app
            .flat_map(|event| event["verdicts"].as_array().cloned().unwrap_or_default())
            .map(|verdict| verdict["reason"].clone())
            .collect::<Vec<_>>()
    };
    let shop = reasons("shop");
    assert!(shop.contains(&json!("window_open")), "{shop:?}");
    assert!(reasons("trial").iter().all(|reason| *reason == json!("guard_not_held")), "{:?}", reasons("trial"));
}
