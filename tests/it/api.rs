//! The API as a program meets it: the table of routes, methods, permissions, and what every answer has in common.

use std::collections::BTreeSet;

use reqwest::Method;
use signalman::api::routes;
use signalman::auth::permission::Permission;
use signalman::auth::{Role, may};

use crate::harness::{Server, TestSite};

async fn ask(server: &Server, method: &str, path: &str, token: Option<&str>) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", server.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.expect("the server answers")
}

#[test]
fn no_address_has_a_method_twice() {
    let mut seen = BTreeSet::new();
    for route in routes::all() {
        assert!(seen.insert((route.path, route.method.name())), "{} {} twice", route.method.name(), route.path);
        assert!(!route.summary.is_empty() && !route.summary.ends_with('.'), "{}", route.summary);
    }
}

#[tokio::test]
async fn every_route_asks_for_its_token_and_refuses_what_its_query_does_not_know() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    for route in routes::all().filter(|route| route.permission != Permission::Open) {
        let path = route.path.replace(['{', '}'], "x");
        let what = format!("{} {path}", route.method.name());
        for token in [None, Some("wrong")] {
            let response = ask(&server, route.method.name(), &path, token).await;
            assert_eq!(response.status(), 401, "{what}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer", "{what}");
        }
        let response = ask(&server, route.method.name(), &format!("{path}?lmit=3"), Some(&server.token)).await;
        assert_eq!(response.status(), 400, "{what}");
        let problem: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(problem["errors"][0]["field"], "lmit", "{what}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        let says = if route.query.is_empty() { "this address takes none" } else { "did you mean `limit`?" };
        assert!(detail.contains(says) || !route.query.iter().any(|parameter| parameter.name == "limit"), "{what}: {detail}");
    }
}

#[tokio::test]
async fn an_address_says_which_methods_it_has() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    for (path, allow) in [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/api/v1/events", "GET, HEAD, OPTIONS, POST"),
        ("/api/v1/keys/a", "DELETE, GET, HEAD, OPTIONS, PUT"),
    ] {
        let response = ask(&server, "PATCH", path, Some(&server.token)).await;
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, allow), "{path}");
        let response = ask(&server, "OPTIONS", path, None).await;
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (204, allow), "{path}");
    }
    let response = ask(&server, "HEAD", "/api/v1/rules", Some(&server.token)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "", "a head has no body");
    assert_eq!(ask(&server, "HEAD", "/api/v1/rules", None).await.status(), 401);
}

#[tokio::test]
async fn every_role_may_what_it_may_and_nothing_else() {
    let site = TestSite::new();
    let server = Server::start(&site).await;
    for role in Role::ALL {
        let (status, made) = server.post("/api/v1/tokens", &serde_json::json!({"name": role.name().to_uppercase(), "role": role})).await;
        assert_eq!(status, 200, "{made}");
        let token = made["token"].as_str().unwrap();
        for route in routes::all().filter(|route| route.permission != Permission::Open) {
            let path = route.path.replace(['{', '}'], "x");
            let response = ask(&server, route.method.name(), &path, Some(token)).await;
            let what = format!("{} asks {} {path}", role.name(), route.method.name());
            assert_ne!(response.status(), 401, "{what}");
            assert_eq!(response.status() == 403, !may(*role, route.permission), "{what}: {}", response.status());
            if response.status() == 403 {
                let text = response.text().await.unwrap();
                let that_may = Role::that_may(route.permission).join(" or ");
                assert!(text.contains(&format!("has the role `{}`, and that needs the role {that_may}", role.name())), "{what}: {text}");
            }
        }
    }
}
