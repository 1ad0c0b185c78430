//! What Prometheus answers to an instant query, and everything else that may stand in its place. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::json::{check_depth, describe};
use crate::model::secret::Masks;
use crate::outbound::Reply;

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// The most warnings that are kept.
const MAX_WARNINGS: usize = 10;

/// What a query gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The values.
    pub shape: Shape,
    /// What Prometheus found doubtful.
    pub warnings: Vec<String>,
}

/// The values of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// One value for each label set.
    Vector(Vec<(Labels, Sample)>),
    /// One value without labels.
    Scalar(Sample),
}

/// A value and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Seconds since 1970.
    pub at: f64,
    /// The value.
    pub reading: Reading,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A finite number.
    Number(f64),
    /// `NaN`, `+Inf` or `-Inf`.
    Special(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error_type: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Box<RawValue>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    #[serde(default)]
    value: Option<(f64, String)>,
}

/// Reads a reply; `most` series are taken.
///
/// # Errors
/// In words that say what came instead of values.
pub fn read(reply: &Reply, most: usize, masks: &Masks) -> Result<Answer, String> {
    let (status, kind) = (reply.status, reply.header("content-type"));
    if (300..400).contains(&status) {
        let to = reply.header("location");
        return Err(format!("answered {status}, go to `{to}`; redirects are not followed: write the final address into `url`"));
    }
    let shown = || reply.shown(masks).lines().next().unwrap_or_default().chars().take(120).collect::<String>();
    let body = check_depth(&reply.body).and_then(|()| serde_json::from_slice::<Body>(&reply.body).map_err(|error| describe(&error)));
    let body = match body {
        Ok(body) => body,
        // A proxy or a login page: the status says more than the page.
        Err(_) if kind.contains("html") => {
            return Err(format!("answered {status} with an HTML page, is there a proxy in between? {}", shown()));
        }
        Err(_) if !(200..300).contains(&status) => return Err(format!("answered {status}: {}", shown())),
        Err(error) => return Err(format!("answered with something that Prometheus does not: {error}; it begins with `{}`", shown())),
    };
    if body.status != "success" {
        let (kind, error) = (body.error_type.unwrap_or_default(), body.error.unwrap_or_default());
        return Err(format!("Prometheus says {kind} ({status}): {error}"));
    }
    if !(200..300).contains(&status) {
        return Err(format!("answered {status} and yet `success`"));
    }
    let data = body.data.ok_or("answered without `data`")?;
    let mut warnings = body.warnings.unwrap_or_default();
    warnings.truncate(MAX_WARNINGS);
    Ok(Answer { shape: shape(&data, most)?, warnings })
}

fn shape(data: &Data, most: usize) -> Result<Shape, String> {
    let wrong = |error: &serde_json::Error| format!("answered with a {} that cannot be read: {}", data.result_type, describe(error));
    match data.result_type.as_str() {
        "vector" => {
            let series: Vec<Series> = serde_json::from_str(data.result.get()).map_err(|error| wrong(&error))?;
            if series.len() > most {
                return Err(format!("has {} series, more than `max_series`, {most}; aggregate, or raise it", series.len()));
            }
            let one = |series: Series| {
                let value = series.value.ok_or("has native histograms; make a number of them, such as with histogram_quantile")?;
                Ok((series.metric, sample(&value)?))
            };
            series.into_iter().map(one).collect::<Result<_, String>>().map(Shape::Vector)
        }
        "scalar" => {
            let value = serde_json::from_str(data.result.get()).map_err(|error| wrong(&error))?;
            sample(&value).map(Shape::Scalar)
        }
        "matrix" => Err("gives a range of values for each series; take one, such as with last_over_time or rate".into()),
        other => Err(format!("gives a {other}; a vector or a scalar is needed")),
    }
}

fn sample((at, text): &(f64, String)) -> Result<Sample, String> {
    let number: f64 = text.parse().map_err(|_| format!("has the value `{text}`, which is not a number"))?;
    let reading = match number {
        number if number.is_nan() => Reading::Special("NaN"),
        f64::INFINITY => Reading::Special("+Inf"),
        f64::NEG_INFINITY => Reading::Special("-Inf"),
        number => Reading::Number(number),
    };
    Ok(Sample { at: *at, reading })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reply(status: u16, kind: &str, body: &str) -> Reply {
        let headers = json!({"content-type": kind, "location": "/login"}).as_object().unwrap().clone();
        Reply { status, headers, body: body.as_bytes().to_vec() }
    }

    /// What a real Prometheus answered.
    fn recorded(text: &str) -> Reply {
        let exchange: Value = serde_json::from_str(text).unwrap();
        let response = &exchange["response"];
        let status = u16::try_from(response["status"].as_u64().unwrap()).unwrap();
        reply(status, "application/json", &response["body"].to_string())
    }

    macro_rules! recorded {
        ($name:literal) => {
            recorded(include_str!(concat!("../../../tests/fixtures/prometheus/", $name, ".http.json")))
        };
    }

    #[test]
    fn what_prometheus_answers_is_read() {
        let read = |reply: &Reply| super::read(reply, 10_000, &Masks::default());
        let Shape::Vector(series) = read(&recorded!("query_vector")).unwrap().shape else { panic!("a vector") };
        assert_eq!((series.len(), series[0].0["job"].as_str(), &series[2].1.reading), (3, "lock-gateway", &Reading::Number(1.0)));
        let Shape::Vector(series) = read(&recorded!("query_nan_inf")).unwrap().shape else { panic!("a vector") };
        let readings: Vec<&Reading> = series.iter().map(|(_, sample)| &sample.reading).collect();
        assert_eq!(readings, [&Reading::Special("NaN"), &Reading::Special("+Inf"), &Reading::Special("-Inf")]);
        let scalar = Shape::Scalar(Sample { at: 1_795_159_527.659, reading: Reading::Number(1.0) });
        assert_eq!(read(&recorded!("query_scalar")).unwrap().shape, scalar);
        assert_eq!(read(&recorded!("query_empty")).unwrap().shape, Shape::Vector(Vec::new()));
        for (reply, says) in [
            (recorded!("query_string"), "gives a string; a vector or a scalar is needed"),
            (recorded!("query_matrix_range_selector"), "gives a range of values"),
            (recorded!("error_bad_data"), "Prometheus says bad_data (400): invalid parameter \"query\": 1:7: parse error"),
            (recorded!("error_execution"), "Prometheus says execution (422): found duplicate series"),
        ] {
            let error = read(&reply).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        assert!(super::read(&recorded!("query_vector"), 2, &Masks::default()).unwrap_err().contains("3 series, more than `max_series`, 2"));
    }

    #[test]
    fn what_others_answer_is_told() {
        let vector = |value: &str| format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{value}]}}}}"#);
        let nested = format!("{{\"status\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        for (reply, says) in [
            (reply(302, "text/html", ""), "answered 302, go to `/login`; redirects are not followed"),
            (reply(502, "text/html", "<h1>Bad gateway</h1>"), "answered 502 with an HTML page"),
            (reply(200, "text/html; charset=utf-8", "<html>\nLog in"), "answered 200 with an HTML page"),
            (reply(401, "text/plain", "who are you, hunter2?"), "answered 401: who are you, ********?"),
            (
                reply(503, "application/json", r#"{"status":"error","errorType":"timeout","error":"too slow"}"#),
                "Prometheus says timeout (503): too slow",
            ),
            (reply(500, "application/json", r#"{"status":"success"}"#), "answered 500 and yet"),
            (reply(200, "application/json", r#"{"status":"success"}"#), "answered without `data`"),
            (
                reply(200, "application/json", r#"{"message":"hello"}"#),
                "answered with something that Prometheus does not: missing field `status`",
            ),
            (reply(200, "application/json", "{\"status\":"), "answered with something that Prometheus does not"),
            (reply(200, "application/json", &nested), "answered with something that Prometheus does not: JSON nests deeper"),
            (
                reply(200, "application/json", &vector(r#"{"metric":{"a":1},"value":[1,"1"]}"#)),
                "answered with a vector that cannot be read",
            ),
            (reply(200, "application/json", &vector(r#"{"metric":{},"value":[1,"x"]}"#)), "has the value `x`"),
            (reply(200, "application/json", &vector(r#"{"metric":{},"histogram":[1,{}]}"#)), "has native histograms"),
        ] {
            let error = super::read(&reply, 10, &Masks::of([&serde_json::json!("hunter2")])).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn warnings_are_kept() {
        let text = r#"{"status":"success","warnings":["a"],"data":{"resultType":"scalar","result":[1.5,"1e3"]}}"#;
        let answer = read(&reply(200, "application/json", text), 10, &Masks::default()).unwrap();
        assert_eq!(answer.warnings, ["a"]);
        assert_eq!(answer.shape, Shape::Scalar(Sample { at: 1.5, reading: Reading::Number(1_000.0) }));
    }
}
