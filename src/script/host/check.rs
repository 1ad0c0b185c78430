//! Finds in a compiled script what would fail as soon as the line runs: names that nobody has, and functions that a module does not have.

use rhai::{AST, ASTNode, Expr, Position};

use super::compile::ScriptFault;
use super::{HostModule, module, names};
use crate::document::fault::nearest;
use crate::document::fields::did_you_mean;

/// The most faults of one script that are told.
const MOST: usize = 20;

/// What is wrong, in the order of the lines.
pub(super) fn faults(ast: &AST) -> Vec<ScriptFault> {
    let functions: Vec<(String, usize)> = ast.iter_functions().map(|function| (function.name.to_string(), function.params.len())).collect();
    let mut found: Vec<(Position, String)> = Vec::new();
    for function in ast.iter_functions() {
        // A closure's parameters hold what it captured.
        let own = Own { parameters: &function.params, functions: &functions };
        let (name, count) = (function.name.to_string(), function.params.len());
        let mut alone = ast.clone();
        alone.clear_statements().retain_functions(|_, _, other, parameters| other == name && parameters == count);
        alone.walk(&mut |path| {
            if let Some(ASTNode::Expr(expression)) = path.last() {
                found.extend(own.fault(expression));
            }
            true
        });
    }
    found.sort_by_key(|(position, _)| (position.line(), position.position()));
    found.dedup();
    found.truncate(MOST);
    found.into_iter().map(|(position, message)| ScriptFault::at(position, message)).collect()
}

/// What a function can name besides its variables, which Rhai has found already.
struct Own<'f> {
    parameters: &'f [&'f str],
    functions: &'f [(String, usize)],
}

impl Own<'_> {
    fn fault(&self, expression: &Expr) -> Option<(Position, String)> {
        match expression {
            Expr::Variable(variable, None, position) if variable.0.is_none() && variable.2.is_empty() => {
                Some((*position, self.unknown(&variable.1)?))
            }
            Expr::Dot(pair, ..) => {
                let Expr::Variable(variable, None, _) = &pair.lhs else { return None };
                let is_own = variable.0.is_some() || self.parameters.contains(&variable.1.as_str());
                let called = module(&variable.1).filter(|_| !is_own)?;
                self.misused(called, first(&pair.rhs))
            }
            _ => None,
        }
    }

    fn unknown(&self, name: &str) -> Option<String> {
        let known = |other: &str| other == name;
        if self.parameters.iter().any(|own| known(own)) || self.functions.iter().any(|(own, _)| known(own)) || names().any(known) {
            return None;
        }
        let mut own: Vec<&str> = names().collect();
        own.extend(self.parameters);
        let hint = match nearest(name, own) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "a function sees its parameters and its own variables, not those of other functions or outside of functions".into(),
        };
        Some(format!("there is no variable `{name}`; {hint}"))
    }

    fn misused(&self, module: &HostModule, step: &Expr) -> Option<(Position, String)> {
        let known: Vec<&str> = module.functions.iter().map(super::ScriptFunction::name).collect();
        match step {
            Expr::MethodCall(call, position) => {
                let name = call.name.as_str();
                let message = if !known.contains(&name) {
                    format!("`{}` has no function `{name}`; {}", module.name, did_you_mean(name, &known))
                } else if self.functions.iter().any(|(own, parameters)| own == name && *parameters == call.args.len()) {
                    // As Rhai has it, a function of the script can be called as a method of anything.
                    format!("the script's own function `{name}` would be called instead of `{}.{name}`; give it another name", module.name)
                } else {
                    return None;
                };
                Some((*position, message))
            }
            Expr::Property(property, position) if !module.values.contains(&property.2.as_str()) => {
                let (module, name) = (module.name, &property.2);
                Some((*position, format!("`{module}.{name}` is not a value; {module} has the functions {}", known.join(", "))))
            }
            _ => None,
        }
    }
}

/// The first step of what is asked of a variable: `get` in `http.get(url).json()`.
fn first(step: &Expr) -> &Expr {
    match step {
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => first(&pair.lhs),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, compile};
    use crate::model::action::Script;

    fn check(text: &str) -> Vec<String> {
        let script = Script { file: "t.rhai".into(), text: text.into() };
        let faults = compile(&script, Entry::Run).err().unwrap_or_default();
        faults.into_iter().map(|fault| format!("{}:{}: {}", fault.line, fault.column, fault.message)).collect()
    }

    #[test]
    fn what_nobody_has_is_found_with_its_place() {
        assert_eq!(check("fn run(params) {\n    htpp.get(config.url)\n}"), ["2:5: there is no variable `htpp`; did you mean `http`?"]);
        assert_eq!(check("fn run(params) { http.gt(config.url) }"), ["1:23: `http` has no function `gt`; did you mean `get`?"]);
        assert_eq!(check("fn run(params) { helper() } fn helper() { params.a + parms }").len(), 2);
        assert_eq!(check("fn run(params) { [1].map(|x| x + wrong) }").len(), 1);
        assert_eq!(check("fn run(params) { http.get }").len(), 1);
        assert_eq!(check("let a = 1; fn run(params) { a }").len(), 1);
        assert_eq!(
            check("fn run(params) {\n    http.get(config.url)\n}\nfn get(url) { url }"),
            ["2:10: the script's own function `get` would be called instead of `http.get`; give it another name"]
        );
    }

    #[test]
    fn what_is_there_is_no_fault() {
        for text in [
            "fn run(params) { let a = 1; for (x, i) in [a] { a += x + i; } try { a } catch (e) { e } }",
            "fn run(params) { let n = 2; let f = |x| [x].map(|y| y * n + params.by); f.call(1) }",
            "fn run(params) { [1].map(|x| kv.get(`k${x}`) ?? config.url) }",
            "fn run(params) { let text = \"a\"; text.len() }",
            "fn run(params) { kv.system.get(\"a\") ?? kv.user.anything }",
            "fn run(params) { actions.run(\"core.noop\") }",
            "fn run(params) { #{run: 1, plan: 2}.run } fn plan(params) { 1 }",
            "fn run(log) { log.anything() }",
            "fn run(params) { switch params.a { 1 => { let b = 2; b }, _ => context.attempt } }",
            "fn run(params) { [2, 1].map(double) } fn double(x) { x * 2 }",
            "fn run(params) { let r = http.get(config.url); if r.status == 200 { r.json().a?.b } else { () } }",
            "fn run(params) { while true { let x = 1; if x > 0 { break; } } do { let y = 1; } while false; }",
            "fn run(params) { let s = `a${let z = 3; z}`; s }",
            "fn run(params) { emit(1) } fn other(a, b) { this.x = a; b }",
            "fn run(params) { let f = Fn(\"double\"); f.call(2) } fn double(x) { x * 2 }",
        ] {
            assert_eq!(check(text), Vec::<String>::new(), "{text}");
        }
    }
}
