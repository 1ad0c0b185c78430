//! Logs and metrics. Logs go to standard error; metrics are served at `/metrics`.

use std::cell::Cell;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tracing_subscriber::EnvFilter;

use crate::model::secret::Masks;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is as in `RUST_LOG`: `info`, `signalman=debug`.
///
/// # Errors
/// When the filter is not one.
pub fn start_logs(filter: &str, format: LogFormat, colours: bool) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("`{filter}` is not a log filter such as info or signalman=debug: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Masked).with_ansi(colours);
    // A second start in one process keeps the first; only tests do that.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// What no line of the log may show. One for the process, as the log is.
static MASKS: RwLock<Option<Masks>> = RwLock::new(None);

/// Hides the secrets of the site in the log from now on, also where a library logs them.
pub fn mask_logs(masks: Masks) {
    *MASKS.write().unwrap_or_else(PoisonError::into_inner) = Some(masks);
}

/// Standard error without secrets. A line comes as one piece.
struct Masked;

impl Write for Masked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let masks = MASKS.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(masks) = masks else { return io::stderr().lock().write(line) };
        let mut text = String::from_utf8_lossy(line).into_owned();
        masks.text(&mut text);
        io::stderr().lock().write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

thread_local! {
    /// Whether a panic of this thread is caught and told by whoever called.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics be logged like everything else, but for those that [`without_panic`] catches. Call it once.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        if !EXPECTED.get() {
            tracing::error!("panic: {info}");
        }
    }));
}

/// Calls code of others that panics instead of returning errors.
///
/// # Errors
/// What it said when it panicked.
pub fn without_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = EXPECTED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(before);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "without a word".into())
    })
}

/// Every metric, by the name it is served under.
pub struct Metrics {
    registry: Registry,
    /// Events by what became of them: accepted, duplicate, rejected.
    pub events: IntCounterVec,
    /// Verdicts that are kept, by reason.
    pub verdicts: IntCounterVec,
    /// Executions that have ended, by status.
    pub executions: IntCounterVec,
    /// Executions that have not ended.
    pub open_executions: IntGauge,
    /// Messages by what became of them.
    pub messages: IntCounterVec,
    /// Requests to webhooks, by webhook and status of the answer.
    pub webhooks: IntCounterVec,
    /// Alerts that Alertmanager left out of its notifications.
    pub truncated_alerts: IntCounter,
    /// Records that retention has removed.
    pub expired: IntCounter,
    /// 1 while the store takes commits, else 0.
    pub store_healthy: IntGauge,
    /// Keys that windows and throttles remember, of all rules.
    pub window_keys: IntGauge,
    /// How often the store stopped taking commits.
    pub store_failures: IntCounter,
    store_bytes: IntGaugeVec,
    /// How long the commit of events and decisions took, in seconds.
    pub commit_seconds: Histogram,
    /// Restarts of sensors.
    pub sensor_restarts: IntCounterVec,
    /// Events of sensors.
    pub sensor_events: IntCounterVec,
    /// How often a sensor could not do its work.
    pub sensor_failures: IntCounterVec,
    /// Due times that a timer missed and left out.
    pub sensor_skipped: IntCounterVec,
    /// 1 while a sensor does its work, else 0.
    pub sensor_up: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Panics
    /// When two metrics have one name, which a test would show.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("signalman".into()), None).expect("the prefix is a valid name");
        let vector = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are valid");
            registry.register(Box::new(metric.clone())).expect("names are unique");
            metric
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help).expect("names are valid");
            registry.register(Box::new(metric.clone())).expect("names are unique");
            metric
        };
        let events = vector("events_total", "Events by what became of them", &["outcome"]);
        let verdicts = vector("verdicts_total", "Matches and near-misses by reason", &["reason"]);
        let executions = vector("executions_total", "Executions that have ended, by status", &["status"]);
        let messages = vector("messages_total", "Messages by what became of them", &["outcome"]);
        let webhooks = vector("webhook_requests_total", "Requests to webhooks", &["webhook", "status"]);
        let sensor_restarts = vector("sensor_restarts_total", "Restarts of sensors", &["sensor"]);
        let sensor_events = vector("sensor_events_total", "Events of sensors", &["sensor"]);
        let sensor_failures = vector("sensor_failures_total", "How often a sensor could not do its work", &["sensor"]);
        let sensor_skipped = vector("sensor_skipped_total", "Due times that a timer missed and left out", &["sensor"]);
        let sensor_up =
            IntGaugeVec::new(Opts::new("sensor_up", "1 while the sensor does its work"), &["sensor"]).expect("names and labels are valid");
        registry.register(Box::new(sensor_up.clone())).expect("names are unique");
        let truncated_alerts = counter("alertmanager_truncated_alerts_total", "Alerts that Alertmanager left out (max_alerts)");
        let expired = counter("expired_records_total", "Records that retention has removed");
        let open_executions = IntGauge::new("open_executions", "Executions that have not ended").expect("names are valid");
        registry.register(Box::new(open_executions.clone())).expect("names are unique");
        let store_healthy = IntGauge::new("store_healthy", "1 while the store takes commits").expect("names are valid");
        registry.register(Box::new(store_healthy.clone())).expect("names are unique");
        let window_keys = IntGauge::new("window_keys", "Keys that windows and throttles remember").expect("names are valid");
        registry.register(Box::new(window_keys.clone())).expect("names are unique");
        let store_failures = counter("store_failures_total", "How often the store stopped taking commits");
        let store_bytes =
            IntGaugeVec::new(Opts::new("store_bytes", "Bytes of the store: live, disk, free"), &["of"]).expect("names are valid");
        registry.register(Box::new(store_bytes.clone())).expect("names are unique");
        let buckets = vec![0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
        let options = HistogramOpts::new("commit_seconds", "Commit of events and decisions").buckets(buckets);
        let commit_seconds = Histogram::with_opts(options).expect("buckets are valid");
        registry.register(Box::new(commit_seconds.clone())).expect("names are unique");
        Self {
            registry,
            events,
            verdicts,
            executions,
            open_executions,
            messages,
            webhooks,
            truncated_alerts,
            expired,
            store_healthy,
            window_keys,
            store_failures,
            store_bytes,
            commit_seconds,
            sensor_restarts,
            sensor_events,
            sensor_failures,
            sensor_skipped,
            sensor_up,
        }
    }

    /// Sets the sizes of the store, in bytes: keys and values that can be read, what they take on disk, and what is free there.
    pub fn store_sizes(&self, live: u64, disk: u64, free: Option<u64>) {
        for (of, bytes) in [("live", Some(live)), ("disk", Some(disk)), ("free", free)] {
            if let Some(bytes) = bytes {
                self.store_bytes.with_label_values(&[of]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
    }

    /// The metrics as Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
