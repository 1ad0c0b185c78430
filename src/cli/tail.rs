//! `signalman execution tail`: what an execution says, line by line, until it ends.

use super::client::ApiClient;
use super::table::text;
use super::{Answer, Common, Failure, Output, print_line};

/// Seconds for which the server holds its answer where there is nothing to tell.
const HELD: u64 = 20;

/// Prints every line as it comes; the answer is whether the execution has succeeded.
pub(super) fn tail(common: &Common, client: &ApiClient, id: &str) -> Result<Answer, Failure> {
    let (mut attempt, mut next) = (0, 0);
    loop {
        let said = client.get(&format!("/api/v1/executions/{id}/output?attempt={attempt}&after={next}&wait={HELD}"))?;
        let now = said["attempt"].as_u64().unwrap_or_default();
        if now != attempt && now > 1 && common.output == Output::Table {
            eprintln!("attempt {now}");
        }
        (attempt, next) = (now, said["next"].as_u64().unwrap_or_default());
        let mut last = None;
        for line in said["lines"].as_array().into_iter().flatten() {
            let number = line["number"].as_u64().unwrap_or_default();
            common.show_next(line, || {
                // Between the beginning and the end something may not be kept any more.
                if let Some(left_out) = last.map(|last| number - last - 1).filter(|left_out| *left_out > 0) {
                    eprintln!("… {left_out} lines are not shown …");
                }
                print_line(&text(&line["text"]));
            });
            last = Some(number);
        }
        if said["ended"] == true {
            if common.output == Output::Table {
                eprintln!("{}", text(&said["status"]));
            }
            return Ok(if said["status"] == "succeeded" { Answer::Yes } else { Answer::No });
        }
    }
}
