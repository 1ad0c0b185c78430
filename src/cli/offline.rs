//! What can be done in a data folder before the first start, or while no server has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::access::told;
use super::{Common, Failure};
use crate::app;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Environment, SiteConfig, StoreKind};
use crate::document::fields::Faults;
use crate::model::ids::IdSource;
use crate::model::secret::Secret;
use crate::secrets::{SecretError, Secrets};
use crate::store::Store;
use crate::store::lock::FolderLock;

/// Who changes something so.
pub(super) const BY: &str = "the command line, offline";

/// A site's store, which this process has now. The order is that of closing.
pub(super) struct Offline {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Makes tokens and keys.
    pub ids: Arc<IdSource>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The settings of the site.
    pub config: SiteConfig,
    runtime: tokio::runtime::Runtime,
    _lock: FolderLock,
}

impl Offline {
    /// Opens the store of a site; makes the data folder if there is none.
    ///
    /// # Errors
    /// When a server has it, or it cannot be opened.
    pub fn open(common: &Common, environment: &Environment) -> Result<Self, Failure> {
        // What is wrong with the rest of the settings is no matter here, as long as it is certain where the data is.
        let config = config::load(&common.site, environment, &mut Faults::default());
        if config.store == StoreKind::Memory {
            return Err(Failure::failed(
                "this site keeps its state in memory (`store` in signalman.yaml): there is nothing to change offline",
            ));
        }
        let failed = |error: std::io::Error| Failure::failed(format!("cannot make `{}`: {error}", config.data.display()));
        FolderLock::make_folder(&config.data).map_err(failed)?;
        let lock = FolderLock::try_take(&config.data).map_err(told)?.map_err(|holder| {
            Failure::failed(format!("process {holder} has the data folder `{}`; leave out --offline", config.data.display()))
        })?;
        let store = app::open_in(&config).map_err(told)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::failed(format!("cannot work: {error}")))?;
        Ok(Self { store, ids: Arc::new(IdSource::system()), clock: Arc::new(SystemClock), config, runtime, _lock: lock })
    }

    /// The secrets of the site with their values, for reading its files.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn secrets(&self) -> Result<BTreeMap<String, Secret>, SecretError> {
        self.wait(async {
            let secrets = Secrets::open(&self.config.secret_keys, &self.config.data, &*self.store, &self.ids).await?;
            secrets.values(&*self.store).await
        })
    }

    /// Waits for work.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}
