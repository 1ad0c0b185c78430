//! A site's store: through the server that has it, else in its folder.

use std::path::PathBuf;
use std::sync::Arc;

use super::client::{ApiClient, SERVER_VARIABLE};
use super::{Common, Failure};
use crate::app::{self, STORE_FOLDER, restore};
use crate::config::{self, Environment, SiteConfig, StoreKind};
use crate::document::fields::Faults;
use crate::store::lock::FolderLock;
use crate::store::{Maintenance, Store, StoreError};

/// What to do about damage.
pub(super) const ADVICE: &str = "restore the last good backup with `signalman restore FILE --replace`; what is damaged is kept beside it";

/// What is wrong with the store, and what to do about it.
pub(super) fn told(error: StoreError) -> Failure {
    match error {
        StoreError::Corrupt(what) => Failure::failed(format!("the store is damaged: {what}; {ADVICE}")),
        error @ StoreError::Unavailable(_) => Failure::failed(error.to_string()),
    }
}

/// Where the data is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Place {
    /// The data folder, instead of the one that signalman.yaml names; as with `serve --data`
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

impl Place {
    /// The settings of the site, with the data folder of the command line.
    ///
    /// # Errors
    /// When the data folder is not certain.
    pub fn settings(&self, common: &Common, environment: &Environment) -> Result<SiteConfig, Failure> {
        let mut faults = Faults::default();
        let mut site = config::load(&common.site, environment, &mut faults);
        match &self.data {
            Some(data) => site.data.clone_from(data),
            None if faults.allow() => {}
            None => {
                let faults: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
                let faults = faults.join("\n\n");
                return Err(Failure::misuse(format!("the settings have mistakes; mend them, or name the folder with --data:\n\n{faults}")));
            }
        }
        Ok(site)
    }
}

/// Where a store was found.
pub(super) enum Found {
    /// A server has it.
    Server(Box<ApiClient>),
    /// It lies in a folder that nobody else has now.
    Folder(Box<SiteConfig>, FolderLock),
}

/// A store that can be asked.
pub(super) enum Access {
    /// By the server that has it.
    Server(Box<ApiClient>),
    /// In its folder, which this process has now.
    Folder(Opened),
}

/// A store that this process has opened. The order is that of closing.
pub(super) struct Opened {
    /// What can be asked of it.
    pub maintenance: Arc<dyn Maintenance>,
    _store: Arc<dyn Store>,
    _lock: FolderLock,
}

impl Found {
    /// The store of a site.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(common: &Common, place: &Place, environment: &Environment) -> Result<Self, Failure> {
        if common.server.is_some() || environment.get(SERVER_VARIABLE).is_some() {
            return ApiClient::new(common, environment).map(|client| Self::Server(Box::new(client)));
        }
        let site = place.settings(common, environment)?;
        if !site.data.exists() {
            return Err(Failure::failed(format!(
                "there is no data folder `{}`; name it with --data, or the site with --site",
                site.data.display()
            )));
        }
        let lock = match FolderLock::try_take(&site.data).map_err(told)? {
            Ok(lock) => lock,
            Err(holder) => {
                let mut client = ApiClient::of(common, environment, &site)?;
                client.holder = Some(holder);
                return Ok(Self::Server(Box::new(client)));
            }
        };
        if site.store == StoreKind::Memory {
            return Err(Failure::failed("this site keeps its state in memory (`store` in signalman.yaml), and no server runs"));
        }
        restore::settle(&site.data).map_err(told)?;
        if !restore::is_there(&site.data) {
            let path = site.data.join(STORE_FOLDER);
            return Err(Failure::failed(format!("there is no store in `{}`; start the server, or restore a backup", path.display())));
        }
        Ok(Self::Folder(Box::new(site), lock))
    }
}

impl Access {
    /// The store of a site.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn of(common: &Common, place: &Place, environment: &Environment) -> Result<Self, Failure> {
        match Found::of(common, place, environment)? {
            Found::Server(client) => Ok(Self::Server(client)),
            Found::Folder(site, lock) => {
                let store = app::open_in(&site).map_err(told)?;
                Ok(Self::Folder(Opened { maintenance: store.maintenance(), _store: store, _lock: lock }))
            }
        }
    }
}
