//! `signalman serve`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, Common, Failure};
use crate::api::reload::Reload as _;
use crate::app::reload::Origin;
use crate::app::{self, App, Parts, StartError};
use crate::clock::SystemClock;
use crate::config::Environment;
use crate::model::ids::IdSource;
use crate::outbound::network::Network;
use crate::telemetry::{self, LogFormat};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Listen here instead of where signalman.yaml says; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Keep state in this folder instead of the one signalman.yaml names
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// What to log: error, warn, info, debug, or a filter such as signalman=debug
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
    /// Log one JSON object a line
    #[arg(long)]
    log_json: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let format = if arguments.log_json { LogFormat::Json } else { LogFormat::Text };
    telemetry::start_logs(&arguments.log, format, std::io::stderr().is_terminal()).map_err(Failure::misuse)?;
    let (mut site, warnings) = app::load_site(&common.site, environment)
        .map_err(|faults| Failure::misuse(format!("the site in `{}` cannot run:\n\n{}", common.site.display(), faults.join("\n\n"))))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let origin = Origin { folder: common.site.clone(), environment: environment.clone(), config: site.config.clone() };
    if let Some(listen) = arguments.listen {
        if site.config.public_url == format!("http://{}", site.config.listen) {
            site.config.public_url = format!("http://{listen}");
        }
        site.config.listen = listen;
    }
    if let Some(data) = &arguments.data {
        site.config.data.clone_from(data);
    }
    let failed = |what: &str, error: std::io::Error| Failure::failed(format!("{what}: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| failed("no threads", error))?;
    let (store, _lock) = app::open_store(&site.config).map_err(super::access::told)?;
    let counts = (site.packs.len(), site.actions.len(), site.rules.len());
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed("no signals", error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed("no signals", error))?;
        let told = |error: StartError| Failure::failed(error.to_string());
        let parts = Parts::real(store, Arc::new(SystemClock), Arc::new(IdSource::system())).map_err(told)?;
        let network = Network::allowing(site.config.local_names.clone()).map_err(|error| told(error.into()))?;
        let app = app::start(site, Parts { origin: Some(origin), transport: Arc::new(network), ..parts }).await.map_err(told)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(|error| failed("no signals", error))?;
        greet(&app, counts);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    let _ = app.reload.reload().await; // what became of it has been logged
                }
            }
        }
        tracing::info!("stopping: actions that run may end");
        tokio::select! {
            () = app.stop() => tracing::info!("stopped"),
            () = async { tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} } } => tracing::warn!("stopped at once; the next start settles what ran"),
        }
        Ok(Answer::Yes)
    })
}

fn greet(app: &App, (packs, actions, rules): (usize, usize, usize)) {
    let found = &app.recovered;
    if found.waiting + found.resumed + found.abandoned + found.canceled > 0 {
        tracing::info!(
            "from before: {} waiting, {} tried again, {} abandoned, {} canceled",
            found.waiting,
            found.resumed,
            found.abandoned,
            found.canceled
        );
    }
    tracing::info!("{packs} packs, {actions} actions, {rules} rules; listening on http://{}", app.address);
}
