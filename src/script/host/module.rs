//! What a module says of itself: its functions with signature, meaning and an example. The reference page and the checks of scripts come
//! from here.

use std::fmt::Write as _;
use std::sync::Arc;

use rhai::{Dynamic, Module};

use super::{MODULES, ScriptCall};

/// How a module comes into a script: its name, what it offers, its object for one call.
pub struct HostModule {
    /// The name in scripts.
    pub name: &'static str,
    /// What it is for, in one sentence or two.
    pub summary: &'static str,
    /// What else can be read of it.
    pub values: &'static [&'static str],
    /// What it offers.
    pub functions: &'static [ScriptFunction],
    /// What the name stands for in one call.
    pub(super) object: fn(&Arc<ScriptCall>) -> Dynamic,
    /// Adds its functions.
    pub(super) register: fn(&mut Module),
}

/// A function of a module.
pub struct ScriptFunction {
    /// How it is called, such as `kv.get(name)`; `…(name, value?)` where the last argument may be left out.
    pub signature: &'static str,
    /// What it does, in one sentence or two.
    pub summary: &'static str,
    /// An expression that a test runs.
    pub example: &'static str,
    /// What the example gives, as JSON; empty where that depends on time and place.
    pub gives: &'static str,
}

/// A function with its example, in the order of [`ScriptFunction`]'s fields.
pub(super) const fn function(signature: &'static str, summary: &'static str, example: &'static str, gives: &'static str) -> ScriptFunction {
    ScriptFunction { signature, summary, example, gives }
}

impl ScriptFunction {
    /// The bare name: `get` of `kv.get(name)`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let called = self.signature.split('(').next().unwrap_or(self.signature);
        called.rsplit('.').next().unwrap_or(called)
    }
}

/// The module of that name.
#[must_use]
pub fn module(name: &str) -> Option<&'static HostModule> {
    MODULES.iter().find(|module| module.name == name)
}

/// The page `docs/reference/scripts.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Modules of scripts\n\nGenerated from the code by `signalman reference scripts`. Every script of an action or sensor sees these, \
         within its pack's [capabilities](../guide/authors.md#capabilities). The examples are run by a test; what stands behind `→` is what \
         they give, as JSON.\n",
    );
    for module in MODULES {
        let _ = write!(page, "\n## {}\n\n{}\n", module.name, module.summary);
        for function in module.functions {
            let gives = if function.gives.is_empty() { String::new() } else { format!("   // → {}", function.gives) };
            let _ = write!(page, "\n**`{}`** {}\n\n```rhai\n{}{gives}\n```\n", function.signature, function.summary, function.example);
        }
    }
    page
}
