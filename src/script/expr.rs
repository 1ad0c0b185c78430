//! `<% … %>`: pure Rhai expressions, compiled when they are loaded, evaluated with a budget.

use std::cell::Cell;
use std::sync::LazyLock;

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicMapPackage, BasicMathPackage, BasicStringPackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{AST, Dynamic, Engine, EvalAltResult, Scope};
use serde_json::Value;

/// The most operations one expression may take.
pub const MAX_OPERATIONS: u64 = 100_000;

/// The longest string that an expression may build.
pub const MAX_STRING_BYTES: usize = 256 * 1024;

/// The longest source of an expression.
pub const MAX_SOURCE_BYTES: usize = 16 * 1024;

/// An expression, compiled.
#[derive(Debug, Clone)]
pub struct Expression {
    ast: AST,
}

/// The names that an expression may use, and their values.
pub struct Names {
    scope: Scope<'static>,
}

impl Names {
    /// No names yet.
    #[must_use]
    pub fn new() -> Self {
        Self { scope: Scope::new() }
    }

    /// Adds a name. The value is shared, not copied, by all expressions that see it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &Value) -> Self {
        self.scope.push_constant_dynamic(name, to_dynamic(value).into_shared());
        self
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// A fault in an expression, with its place inside it, both from one where known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Line within the expression.
    pub line: Option<usize>,
    /// Column within the line.
    pub column: Option<usize>,
    /// Whether it used up its budget.
    pub exhausted: bool,
}

impl std::fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Expression {
    /// Compiles an expression that may use the given names and no others.
    ///
    /// # Errors
    /// When it is no expression, is too long, or uses an unknown name.
    pub fn compile(source: &str, names: &[&'static str]) -> Result<Self, ExpressionError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(ExpressionError {
                message: format!("the expression is longer than {MAX_SOURCE_BYTES} bytes"),
                line: None,
                column: None,
                exhausted: false,
            });
        }
        let mut scope = Scope::new();
        for name in names {
            // A constant would be folded into the expression with the value it has here.
            scope.push_dynamic(*name, Dynamic::UNIT);
        }
        let ast = ENGINE.compile_expression_with_scope(&scope, source).map_err(|error| ExpressionError {
            message: format!("{}", error.err_type()),
            line: error.position().line(),
            column: error.position().position(),
            exhausted: false,
        })?;
        Ok(Self { ast })
    }

    /// The value of the expression.
    ///
    /// # Errors
    /// When it fails or uses up its budget.
    pub fn evaluate(&self, names: &Names) -> Result<Value, ExpressionError> {
        let mut scope = names.scope.clone();
        OPERATIONS.set(0);
        let value: Dynamic = ENGINE.eval_ast_with_scope(&mut scope, &self.ast).map_err(|error| failure(&error))?;
        rhai::serde::from_dynamic(&value.flatten()).map_err(|error| failure(&error))
    }
}

thread_local! {
    /// Operations of the evaluation on this thread. Rhai counts those within each call of a closure anew, so that closures in closures would
    /// hardly ever use up the budget.
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = Engine::new_raw();
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    engine
        .set_max_operations(MAX_OPERATIONS)
        .set_max_call_levels(16)
        .set_max_expr_depths(64, 32)
        .set_max_string_size(MAX_STRING_BYTES)
        .set_max_array_size(10_000)
        .set_max_map_size(10_000)
        .set_strict_variables(true)
        .disable_symbol("eval")
        .on_progress(|_| {
            OPERATIONS.set(OPERATIONS.get() + 1);
            (OPERATIONS.get() > MAX_OPERATIONS).then_some(Dynamic::UNIT)
        });
    engine
});

fn failure(error: &EvalAltResult) -> ExpressionError {
    let position = error.position();
    let inner = error.unwrap_inner();
    let is_long = matches!(inner, EvalAltResult::ErrorTerminated(..) | EvalAltResult::ErrorTooManyOperations(_));
    let text = if is_long { format!("it takes more than {MAX_OPERATIONS} operations") } else { error.to_string() };
    let message = text.split(" (line ").next().unwrap_or(&text).to_string();
    let exhausted = is_long || matches!(inner, EvalAltResult::ErrorStackOverflow(_) | EvalAltResult::ErrorDataTooLarge(_, _));
    ExpressionError { message, line: position.line(), column: position.position(), exhausted }
}

/// A JSON value as Rhai sees it. Whole numbers beyond 64 bits become floating-point.
pub fn to_dynamic(value: &Value) -> Dynamic {
    rhai::serde::to_dynamic(value).unwrap_or(Dynamic::UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evaluate(source: &str) -> Result<Value, String> {
        let payload = json!({"values": {"qps": 3100, "cpu": 81.5}, "labels": {"app": "shop"}, "list": [1, 2]});
        let expression = Expression::compile(source, &["trigger"]).map_err(|error| format!("compile: {error}"))?;
        expression.evaluate(&Names::new().with("trigger", &payload)).map_err(|error| error.to_string())
    }

    #[test]
    fn values_keep_their_types() {
        assert_eq!(evaluate("max(1, (trigger.values.qps / 1500.0).ceiling().to_int())").unwrap(), json!(3));
        assert_eq!(evaluate("trigger?.labels?.env == \"prod\"").unwrap(), json!(false));
        assert_eq!(evaluate("`${trigger.labels.app}-x`").unwrap(), json!("shop-x"));
        assert_eq!(evaluate("trigger").unwrap()["values"]["cpu"], json!(81.5));
        assert_eq!(evaluate("#{a: trigger.list, b: ()}").unwrap(), json!({"a": [1, 2], "b": null}));
    }

    #[test]
    fn what_is_wrong_is_found_when_loading_where_it_can_be() {
        for source in ["triggr.a", "1 +", "let x = 1; x", "while true {}", "eval(\"1\")"] {
            assert!(evaluate(source).unwrap_err().starts_with("compile: "), "{source}");
        }
        assert!(evaluate("trigger.labels.env.name").unwrap_err().contains("name"));
    }

    #[test]
    fn hungry_expressions_end() {
        let bomb = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(evaluate(&bomb).is_err());
        assert!(evaluate("(0..100000000).map(|x| x)").is_err());
        assert!(evaluate("\"x\".pad(100000000, \"x\")").is_err());
    }

    #[test]
    fn closures_in_closures_have_one_budget() {
        let nested =
            |depth: usize| (0..depth).fold("1".to_string(), |inner, n| format!("[1, 2, 3, 4, 5, 6, 7, 8].map(|x{n}| {inner}).len()"));
        assert_eq!(evaluate(&nested(3)).unwrap(), json!(8));
        let hungry = Expression::compile(&nested(7), &[]).unwrap();
        let error = hungry.evaluate(&Names::new()).unwrap_err();
        assert_eq!((error.message.as_str(), error.exhausted), ("it takes more than 100000 operations", true));
        assert_eq!(evaluate(&nested(3)).unwrap(), json!(8), "each evaluation has its own");
    }
}
