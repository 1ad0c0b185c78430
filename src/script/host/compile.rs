//! Reads scripts: the bounded engine, what is wrong with a script before it runs, and compiled scripts by file and content.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage, BasicStringPackage, LogicPackage,
    MoreStringPackage, Package,
};
use rhai::{AST, Engine, EvalAltResult, ImmutableString, Module, Position, Shared, Token};

use super::check;
use super::{Entry, MAX_CALL_LEVELS, MAX_ITEMS, MAX_OPERATIONS, MAX_STRING_BYTES, MODULES};
use crate::model::action::Script;
use crate::model::failure::Failure;

static PACKAGES: LazyLock<Vec<Shared<Module>>> = LazyLock::new(|| {
    let mut functions = Module::new();
    for module in MODULES {
        (module.register)(&mut functions);
    }
    functions.set_native_fn("replace", |text: &mut ImmutableString, find: ImmutableString, by: ImmutableString| {
        // The built-in one makes the whole text before anything looks at its size.
        let found = text.matches(find.as_str()).count();
        let grown = text.len() - found * find.len() + found * by.len();
        if grown > MAX_STRING_BYTES {
            return Err(Box::new(EvalAltResult::ErrorDataTooLarge("Length of string".into(), Position::NONE)));
        }
        *text = text.replace(find.as_str(), by.as_str()).into();
        Ok(())
    });
    functions.set_native_fn("to_string", |fault: &mut Failure| Ok(fault.message.clone()));
    functions.set_native_fn("to_debug", |fault: &mut Failure| Ok(fault.message.clone()));
    rhai::FuncRegistration::new_getter("message").set_into_module(&mut functions, |fault: &mut Failure| fault.message.clone());
    rhai::FuncRegistration::new_getter("reason").set_into_module(&mut functions, |fault: &mut Failure| fault.reason.code().to_string());
    vec![
        // Chosen one by one: the core package has `sleep`, which no deadline ends.
        ArithmeticPackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        BasicIteratorPackage::new().as_shared_module(),
        Shared::new(functions),
    ]
});

/// An engine with the limits and functions of every script.
pub(super) fn bounded_engine() -> Engine {
    let mut engine = Engine::new_raw();
    for package in PACKAGES.iter() {
        engine.register_global_module(Shared::clone(package));
    }
    engine
        .set_max_operations(MAX_OPERATIONS)
        .set_max_call_levels(MAX_CALL_LEVELS)
        .set_max_expr_depths(64, 32)
        .set_max_string_size(MAX_STRING_BYTES)
        .set_max_array_size(MAX_ITEMS)
        .set_max_map_size(MAX_ITEMS)
        .set_max_modules(0)
        .set_max_variables(1_000)
        .disable_symbol("eval")
        .disable_symbol("import");
    engine
}

/// A fault of a script, with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFault {
    /// What is wrong.
    pub message: String,
    /// Line, from one; zero where unknown.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
}

impl ScriptFault {
    /// A fault of the script as a whole.
    fn whole(message: String) -> Self {
        Self { message, line: 0, column: 0 }
    }

    pub(super) fn at(position: Position, message: String) -> Self {
        Self { message, line: position.line().unwrap_or(0), column: position.position().unwrap_or(0) }
    }
}

/// Compiles a script, sees that it has the function that will be called, and that what it names is there.
///
/// # Errors
/// Everything that is wrong with it; the first mistake where it cannot be parsed.
pub fn compile(script: &Script, entry: Entry) -> Result<AST, Vec<ScriptFault>> {
    let ast =
        reading_engine().compile(&script.text).map_err(|error| vec![ScriptFault::at(error.position(), error.err_type().to_string())])?;
    let (name, parameter) = entry.function();
    let mut faults = check::faults(&ast);
    if !has_function(&ast, entry) {
        faults.push(ScriptFault::whole(format!("the script needs a function `fn {name}({parameter})`")));
    }
    if faults.is_empty() { Ok(ast) } else { Err(faults) }
}

/// Whether a script has the function that would be called.
pub(super) fn has_function(ast: &AST, entry: Entry) -> bool {
    ast.iter_functions().any(|function| function.name == entry.inner_name() && function.params.len() == 1)
}

/// The engine that reads scripts. What Rhai calls as a method may be any function of the script with that name, so `actions.run(…)` would
/// call the script's own `run`; the functions that we call get names of their own.
fn reading_engine() -> Engine {
    let mut engine = bounded_engine();
    let is_declared = AtomicBool::new(false);
    #[allow(deprecated, reason = "not deprecated but marked as likely to change; Rhai has no other way to name a function")]
    engine.on_parse_token(move |token, _, _| {
        let is_name = is_declared.swap(matches!(token, Token::Fn), Ordering::Relaxed);
        match token {
            Token::Identifier(name) if is_name => {
                let entry = Entry::ALL.into_iter().find(|entry| entry.function().0 == name.as_str());
                Token::Identifier(entry.map_or(name, |entry| Box::new(entry.inner_name().into())))
            }
            token => token,
        }
    });
    engine
}

/// Compiled scripts, by file; one whose text has changed is compiled again.
#[derive(Default)]
pub struct ScriptCache {
    compiled: Mutex<HashMap<String, (String, Arc<AST>)>>,
}

impl ScriptCache {
    pub(super) fn get(&self, script: &Script, entry: Entry) -> Result<Arc<AST>, Vec<ScriptFault>> {
        if let Some((text, ast)) = self.compiled.lock().expect("no panic happens while the lock is held").get(&script.file)
            && *text == script.text
        {
            return Ok(Arc::clone(ast));
        }
        let ast = Arc::new(compile(script, entry)?);
        let mut compiled = self.compiled.lock().expect("no panic happens while the lock is held");
        compiled.insert(script.file.clone(), (script.text.clone(), Arc::clone(&ast)));
        Ok(ast)
    }
}
