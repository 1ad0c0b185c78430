//! Series of several queries become rows: one for each label set. Pure.

use std::collections::BTreeMap;

use super::reply::{Answer, Labels, Reading, Sample, Shape};

/// One label set with its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The labels.
    pub labels: Labels,
    /// Finite values, by query. A query that has no series of these labels has none here.
    pub values: BTreeMap<String, f64>,
    /// Values that are no finite numbers, by query: `NaN`, `+Inf`, `-Inf`.
    pub special: BTreeMap<String, &'static str>,
    /// The time of the newest value, in seconds since 1970.
    pub at: f64,
}

impl Row {
    fn put(&mut self, query: &str, sample: &Sample) {
        self.at = self.at.max(sample.at);
        match sample.reading {
            Reading::Number(value) => {
                self.values.insert(query.into(), value);
            }
            Reading::Special(name) => {
                self.special.insert(query.into(), name);
            }
        }
    }
}

/// Rows, and which queries do not fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    /// By label set.
    pub rows: BTreeMap<Labels, Row>,
    /// Query and what is wrong with its series; it has no values in the rows.
    pub faults: Vec<(String, String)>,
}

/// Joins answers by labels; without `by`, by all labels but the name of the metric.
///
/// A scalar belongs to every label set; where no query gives a vector, to the empty one.
#[must_use]
pub fn join(answers: &[(String, Answer)], by: Option<&[String]>) -> Joined {
    let mut joined = Joined::default();
    let mut vectors = 0;
    for (query, answer) in answers {
        let Shape::Vector(series) = &answer.shape else { continue };
        vectors += 1;
        match keyed(series, by) {
            Ok(keyed) => {
                for (labels, (_, sample)) in keyed {
                    let row = joined.rows.entry(labels).or_insert_with_key(|labels| Row { labels: labels.clone(), ..Row::default() });
                    row.put(query, sample);
                }
            }
            Err(fault) => joined.faults.push((query.clone(), fault)),
        }
    }
    if vectors == 0 && !answers.is_empty() {
        joined.rows.insert(Labels::new(), Row::default());
    }
    for (query, answer) in answers {
        if let Shape::Scalar(sample) = &answer.shape {
            joined.rows.values_mut().for_each(|row| row.put(query, sample));
        }
    }
    joined
}

type Keyed<'s> = BTreeMap<Labels, (&'s Labels, &'s Sample)>;

fn keyed<'s>(series: &'s [(Labels, Sample)], by: Option<&[String]>) -> Result<Keyed<'s>, String> {
    let mut keyed = Keyed::new();
    for (labels, sample) in series {
        // An empty label is the same as none, as Prometheus has it.
        let wanted = |(name, value): &(&String, &String)| !value.is_empty() && by.map_or(*name != "__name__", |by| by.contains(name));
        let key: Labels = labels.iter().filter(wanted).map(|(name, value)| (name.clone(), value.clone())).collect();
        let shown = written(&key);
        if let Some((first, _)) = keyed.insert(key, (labels, sample)) {
            let (first, second) = (written(first), written(labels));
            return Err(format!("has two series for {shown}: {first} and {second}; aggregate them, or join by more labels"));
        }
    }
    Ok(keyed)
}

/// Labels as Prometheus writes them.
#[must_use]
pub fn written(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn sample(value: f64) -> Sample {
        let reading = if value.is_finite() { Reading::Number(value) } else { Reading::Special("NaN") };
        Sample { at: 100.0 + value.abs().min(50.0), reading }
    }

    fn vector(query: &str, series: &[(&str, f64)]) -> (String, Answer) {
        let series = series.iter().map(|(text, value)| (labels(text), sample(*value))).collect();
        (query.into(), Answer { shape: Shape::Vector(series), warnings: Vec::new() })
    }

    fn scalar(query: &str, value: f64) -> (String, Answer) {
        (query.into(), Answer { shape: Shape::Scalar(sample(value)), warnings: Vec::new() })
    }

    /// Each row as one line of text.
    fn rows(answers: &[(String, Answer)], by: Option<&[&str]>) -> Vec<String> {
        let by: Option<Vec<String>> = by.map(|by| by.iter().map(ToString::to_string).collect());
        let joined = join(answers, by.as_deref());
        let row = |row: &Row| format!("{} {:?} {:?}", written(&row.labels), row.values, row.special);
        joined.rows.values().map(row).chain(joined.faults.iter().map(|(query, fault)| format!("{query} {fault}"))).collect()
    }

    #[test]
    fn series_with_equal_labels_make_one_row() {
        let cpu = vector("cpu", &[("app=shop", 91.0), ("app=blog", 3.0)]);
        let qps = vector("qps", &[("app=shop", 10.0)]);
        assert_eq!(
            rows(&[cpu.clone(), qps.clone()], Some(&["app"])),
            [r#"{app="blog"} {"cpu": 3.0} {}"#, r#"{app="shop"} {"cpu": 91.0, "qps": 10.0} {}"#],
            "where a partner is missing, its value is"
        );
        assert_eq!(rows(&[cpu.clone(), vector("qps", &[])], None).len(), 2);
        assert!(join(&[qps], None).rows[&labels("app=shop")].at > 109.0);
    }

    #[test]
    fn labels_that_are_not_joined_by_are_left_out() {
        let cpu = vector("cpu", &[("__name__=a,app=shop,pod=1", 1.0)]);
        let qps = vector("qps", &[("__name__=b,app=shop,zone=", 2.0)]);
        assert_eq!(rows(&[cpu.clone(), qps.clone()], Some(&["app"])), [r#"{app="shop"} {"cpu": 1.0, "qps": 2.0} {}"#]);
        let apart = [r#"{app="shop"} {"qps": 2.0} {}"#, r#"{app="shop", pod="1"} {"cpu": 1.0} {}"#];
        assert_eq!(rows(&[cpu, qps], None), apart);
    }

    #[test]
    fn two_series_for_one_label_set_are_a_fault_of_that_query_alone() {
        let cpu = vector("cpu", &[("app=shop,pod=1", 1.0), ("app=shop,pod=2", 2.0)]);
        let found = rows(&[cpu, vector("qps", &[("app=shop", 5.0)])], Some(&["app"]));
        assert_eq!(found[0], r#"{app="shop"} {"qps": 5.0} {}"#);
        assert!(found[1].starts_with(r#"cpu has two series for {app="shop"}: {app="shop", pod="1"} and {app="shop", pod="2"}; aggregate"#));
    }

    #[test]
    fn scalars_belong_to_every_label_set() {
        let cpu = vector("cpu", &[("app=a", 1.0), ("app=b", f64::NAN)]);
        let found = rows(&[scalar("total", 7.0), cpu], None);
        assert_eq!(found, [r#"{app="a"} {"cpu": 1.0, "total": 7.0} {}"#, r#"{app="b"} {"total": 7.0} {"cpu": "NaN"}"#]);
        assert_eq!(rows(&[scalar("total", 7.0), scalar("more", 8.0)], None), [r#"{} {"more": 8.0, "total": 7.0} {}"#]);
        assert!(rows(&[scalar("total", 7.0), vector("cpu", &[])], None).is_empty());
        assert!(rows(&[], None).is_empty());
    }
}
