//! What a caller of the API must be allowed to do.

/// What a route asks of its caller. Every route names one; `api::routes` has the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Nothing: anybody may call, as health checks do. Webhooks check their senders themselves.
    Open,
    /// Look at what there is.
    Read,
    /// Run actions, cancel them, switch rules, change keys.
    Operate,
    /// Hand in events.
    Ingest,
    /// What concerns the site as a whole: its files, its store, its tokens.
    Admin,
}

impl Permission {
    /// The name used everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }
}
