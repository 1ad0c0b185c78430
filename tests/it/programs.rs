//! Programs and scripts of the machine: what they are given, what comes back, and what becomes of those that will not end.

use serde_json::{Value, json};

use crate::harness::{Server, Shell, TestSite, eventually};

/// A pack `t` that may run these programs, with actions: name, metadata without `runner_type`, runner, script.
fn site(programs: &str, actions: &[(&str, &str, &str)]) -> TestSite {
    let site = TestSite::empty().file("packs/t/pack.yaml", &format!("ref: t\ncapabilities: {{process: [{programs}], kv: read_write}}\n"));
    actions.iter().fold(site, |site, (name, metadata, script)| {
        let runner = if script.is_empty() { "local-shell-cmd" } else { "local-shell-script" };
        let site = site.file(&format!("packs/t/actions/{name}.yaml"), &format!("runner_type: {runner}\n{metadata}"));
        if script.is_empty() {
            return site;
        }
        let path = format!("packs/t/actions/{name}.sh");
        let site = site.file(&path, script);
        site.allow_to_run(&path);
        site
    })
}

const CMD: &str = "parameters: {}\n";

fn text<'v>(execution: &'v Value, field: &str) -> &'v str {
    execution[field].as_str().unwrap_or_default()
}

/// Whether a process of this command line is there.
fn is_there(words: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(words)
    })
}

#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let show = "#!/bin/sh\nfor a in \"$@\"; do printf '<%s>' \"$a\"; done\n";
    let metadata = "parameters:\n  first: {type: string, position: 0}\n  second: {type: array, position: 1}\n  third: {type: object, position: 2}\n  \
                    fourth: {type: boolean, position: 3}\n  missing: {type: string, position: 4}\n  name: {type: string}\n  loud: {type: boolean}\n  \
                    quiet: {type: boolean}\n  empty: {type: string}\n  count: {type: integer}\n";
    let printf = "parameters:\n  who: {type: string, position: 0}\n";
    let site = site("printf, sh, actions/show.sh", &[("show", metadata, show), ("cmd", CMD, ""), ("printf", printf, "")]);
    let server = Server::start(&site).await;
    let odd = "a b; $(touch x) `id` 'q' \"d\" | & > < * ? ~ \\ \n ü";
    let given = json!({"first": odd, "second": [1, "b", true], "third": {"k": "v w"}, "fourth": true, "name": "-x; y", "loud": true,
                       "quiet": false, "empty": "", "count": 3});
    let shown = server.run("t.show", given).await;
    assert_eq!(text(&shown, "status"), "succeeded", "{shown}");
    let expected = format!("<--name=-x; y><--loud><--count=3><{odd}><1,b,true><{{\"k\":\"v w\"}}><1><>");
    assert_eq!(shown["result"]["stdout"], expected);

    let printed = server.run("t.printf", json!({"cmd": "printf", "args": ["%s|%s", odd], "who": "$HOME"})).await;
    assert_eq!(printed["result"]["stdout"], format!("{odd}|$HOME"));
    let in_shell = server.run("t.cmd", json!({"cmd": "echo \"$1\" | tr a-z A-Z", "shell": true, "args": ["a; b $(id)"]})).await;
    assert_eq!(in_shell["result"]["stdout"], "A; B $(ID)\n");
    let braces = server.run("t.cmd", json!({"cmd": "printf", "args": ["%s", "{{config.x}} <% 1 + 1 %>"]})).await;
    assert_eq!(braces["result"]["stdout"], "{{config.x}} <% 1 + 1 %>", "data is never a template");
}

#[tokio::test]
async fn the_end_of_a_program_becomes_a_result() {
    let site = site("sh, cat, printf, env", &[("cmd", CMD, "")]).file("packs/t/lib/note.txt", "");
    let server = Server::start(&site).await;
    let sh = |script: &str| json!({"cmd": script, "shell": true});
    for (script, stdout) in [
        ("echo '{\"a\": [1]}'", json!({"a": [1]})),
        ("echo 42", json!(42)),
        ("echo 1.10", json!("1.10\n")),
        ("echo hello", json!("hello\n")),
        ("printf 'a\\377b\\0c'", json!("a\u{fffd}b\0c")),
        ("pwd", json!(format!("{}\n", site.path().join("packs/t").canonicalize().unwrap().display()))),
    ] {
        let ended = server.run("t.cmd", sh(script)).await;
        assert_eq!(
            ended["result"],
            json!({"return_code": 0, "stdout": stdout, "stderr": "", "succeeded": true, "failed": false}),
            "{script}"
        );
    }
    let failed = server.run("t.cmd", sh("echo out; echo first >&2; echo last >&2; exit 3")).await;
    assert_eq!((text(&failed, "status"), text(&failed, "reason")), ("failed", "action_failed"));
    assert_eq!(text(&failed, "error"), "`sh` ended with code 3:\nfirst\nlast");
    assert_eq!(failed["result"]["return_code"], 3);
    let killed = server.run("t.cmd", sh("kill -SEGV $$")).await;
    assert_eq!((text(&killed, "error"), &killed["result"]["return_code"]), ("`sh` was ended by signal 11", &json!(139)));
    let fed = server.run("t.cmd", json!({"cmd": "cat", "stdin": "x".repeat(500_000)})).await;
    assert_eq!(fed["status"], "succeeded", "{}", fed["error"]);
    let env = server.run("t.cmd", json!({"cmd": "env", "env": {"A": "b c", "N": 3}})).await;
    let mut names: Vec<&str> = text(&env["result"], "stdout").lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    let ours = ["SIGNALMAN_ACTION", "SIGNALMAN_API_URL", "SIGNALMAN_ATTEMPT", "SIGNALMAN_EXECUTION", "SIGNALMAN_PACK"];
    assert_eq!(names, [&["A", "LANG", "N", "PATH"], &ours[..]].concat(), "nothing is inherited");
    assert!(text(&env["result"], "stdout").contains(&format!("SIGNALMAN_API_URL={}\n", server.url)));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let site = site(
        "no-such-program, notes.txt, bin/plain, printf, sh, bin/odd",
        &[("cmd", CMD, ""), ("gone", "parameters: {}\n", "#!/bin/sh\n"), ("lost", "parameters: {}\n", "#!/no/such/interpreter\n")],
    )
    .file("packs/t/bin/plain", "text")
    .file("packs/t/bin/odd", "no program\n");
    site.allow_to_run("packs/t/bin/odd");
    let server = Server::start(&site).await;
    std::fs::remove_file(site.path().join("packs/t/actions/gone.sh")).unwrap();
    let cases: &[(&str, Value, &str, &str)] = &[
        ("cmd", json!({"cmd": "rm"}), "capability_missing", "pack `t` may not run `rm`; to allow it, add `process: [\"rm\"]`"),
        ("gone", json!({}), "capability_missing", "add `process: [\"actions/gone.sh\"]`"),
        ("cmd", json!({"cmd": "no-such-program"}), "not_started", "there is no program `no-such-program` in /usr/local/sbin:"),
        ("cmd", json!({"cmd": "bin/plain"}), "not_started", "`bin/plain` may not be run; allow it with `chmod +x "),
        ("cmd", json!({"cmd": "bin/odd"}), "not_started", "its first line does not begin with `#!`"),
        ("cmd", json!({"cmd": "printf", "cwd": "no/such"}), "not_started", "nothing can run in the folder "),
        ("cmd", json!({"cmd": "printf", "args": ["a\0b"]}), "not_started", "`args[0]` holds a NUL"),
        ("cmd", json!({"cmd": "printf", "args": ["x".repeat(131_072)]}), "not_started", "give it through `stdin` or a file"),
        ("cmd", json!({"cmd": "printf", "env": {"A": "x".repeat(131_072)}}), "not_started", "variable `A` has 131074 bytes"),
    ];
    for (action, parameters, reason, words) in cases {
        let ended = server.run(&format!("t.{action}"), parameters.clone()).await;
        assert_eq!(text(&ended, "reason"), *reason, "{words}: {ended}");
        assert!(text(&ended, "error").contains(words), "{words}: {}", text(&ended, "error"));
    }
    let many: Vec<String> = (0..40).map(|_| "x".repeat(131_071)).collect();
    // More than a request may have; so through the shell.
    assert!(many.len() * 131_071 > 1 << 20);
    let largest = server.run("t.cmd", json!({"cmd": "printf", "args": ["%s", "x".repeat(131_071)]})).await;
    assert_eq!(largest["status"], "succeeded", "one byte less is an argument: {}", largest["error"]);
}

#[test]
fn a_script_that_may_not_be_run_is_told_when_it_is_read() {
    let site = TestSite::empty()
        .pack(&[("actions/a.yaml", "runner_type: local-shell-script\n"), ("actions/a.sh", "#!/bin/sh\n")])
        .file("packs/t/actions/b.yaml", "runner_type: local-shell-script\n")
        .file("packs/t/actions/b.sh", "echo hi\n")
        .file("packs/t/actions/c.yaml", "runner_type: local-shell-cmd\nparameters: {cmd: {default: ls -l, immutable: true}}\n");
    site.allow_to_run("packs/t/actions/b.sh");
    let output = site.cli(&["lint"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for words in [
        "the script `packs/t/actions/a.sh` may not be run; allow it with `chmod +x packs/t/actions/a.sh`",
        "packs/t/actions/b.sh:1:1: error: the first line must name what runs the script, such as `#!/bin/sh`",
        "`cmd` is one program, and there is none named `ls -l`; write `cmd: {default: ls}` with `args: {default: [-l]}`",
    ] {
        assert!(said.contains(words), "`{words}` is missing in:\n{said}");
    }
}

#[tokio::test]
async fn a_gigabyte_is_not_kept() {
    let site = site("sh", &[("cmd", "timeout: 5m\n", "")]);
    let server = Server::start(&site).await;
    let script = "echo first; head -c 999999000 /dev/zero | tr '\\0' 'x' | fold -w 999; echo last";
    let ended = server.run("t.cmd", json!({"cmd": script, "shell": true})).await;
    assert_eq!(ended["status"], "succeeded", "{}", ended["error"]);
    let stdout = text(&ended["result"], "stdout");
    assert!(stdout.starts_with("first\nxxx") && stdout.ends_with("xxxlast\n") && stdout.contains(" bytes left out …]"), "{}", stdout.len());
    assert!(stdout.len() < 300_000);
    let log = ended["log"].as_array().unwrap();
    assert_eq!((log.len(), &log[0]["text"]), (101, &json!("first")));
    assert!(text(&log[100], "text").ends_with("xlast"), "{}", log[100]);
    assert!(text(&log[50], "text").ends_with("lines are not kept …"), "{}", log[50]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak: u64 = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap();
    assert!(peak < 300_000, "the server took {peak} KiB");
}

#[tokio::test]
async fn nothing_is_left_of_what_will_not_end() {
    let mark = format!("{}", std::process::id());
    // Ignores TERM; its child, in the background, ignores it as well and holds the output.
    let stubborn =
        format!("#!/bin/sh\ntrap '' TERM\n(trap '' TERM; exec sleep 86391{mark}) &\necho up\nwhile :; do sleep 86392{mark}; done\n");
    let site = site(
        "sh, actions/late.sh, actions/canceled.sh, actions/stopped.sh",
        &[
            ("late", "timeout: 300ms\n", &stubborn),
            ("canceled", "timeout: 1h\n", &stubborn),
            ("stopped", "timeout: 1h\n", &stubborn),
            ("cmd", CMD, ""),
        ],
    );
    let server = Server::start(&site).await;
    let late = server.run("t.late", json!({})).await;
    assert_eq!((text(&late, "status"), &late["result"]["return_code"]), ("timed_out", &json!(-9)), "{late}");
    assert!(text(&late, "error").contains("ran longer than the action's `timeout` and was ended"));
    assert_eq!(late["log"][0]["text"], "up");
    assert!(!is_there(&format!("8639{}{mark}", 1)) && !is_there(&format!("86392{mark}")), "the whole group has gone");

    let (_, execution) = server.post("/api/v1/executions", &json!({"action": "t.canceled"})).await;
    let id = text(&execution, "id").to_string();
    eventually("it to be up", || async { is_there(&format!("86392{mark}")).then_some(()) }).await;
    let (status, asked) = server.post(&format!("/api/v1/executions/{id}/cancel"), &json!({})).await;
    assert_eq!((status, text(&asked, "status")), (202, "canceling"));
    let canceled = server.ended(&id).await;
    assert_eq!((text(&canceled, "status"), text(&canceled, "error")), ("canceled", "canceled by token admin"), "{canceled}");
    assert!(!is_there(&format!("86391{mark}")) && !is_there(&format!("86392{mark}")), "cancel stops what runs");

    // What was left behind in the background ends with the action, and does not hold it up.
    let script = format!("sleep 86393{mark} & echo done");
    let left = server.run("t.cmd", json!({"cmd": script, "shell": true})).await;
    assert_eq!((text(&left, "status"), &left["result"]["stdout"]), ("succeeded", &json!("done\n")));
    assert_eq!(left["log"][1]["text"], "it left processes behind that held its output; they were ended");
    assert!(!is_there(&format!("86393{mark}")));

    server.post("/api/v1/executions", &json!({"action": "t.stopped"})).await;
    eventually("it to be up", || async { is_there(&format!("86392{mark}")).then_some(()) }).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    // Twice: at once, without the time that actions get to end.
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        eventually("the signal to arrive", || async { (server.log().contains("stopping")).then_some(()) }).await;
    }
    eventually("everything to end", || async { (!is_there(&format!("86392{mark}"))).then_some(()) }).await;
}

#[tokio::test]
async fn a_pack_may_go_while_its_action_runs() {
    let wait = "#!/bin/sh\necho up\nwhile [ ! -e \"$1\" ]; do sleep 0.05; done\necho still here\n";
    let site = site("actions/wait.sh", &[("wait", "parameters: {path: {type: string, position: 0}}\n", wait)]);
    let flag = site.path().join("go");
    let server = Server::start(&site).await;
    let (_, execution) = server.post("/api/v1/executions", &json!({"action": "t.wait", "parameters": {"path": flag}})).await;
    let id = text(&execution, "id").to_string();
    let output = |query: &'static str| {
        let (server, id) = (&server, &id);
        async move { server.get(&format!("/api/v1/executions/{id}/output?{query}")).await.1 }
    };
    eventually("its first line", || async { (output("").await["lines"][0]["text"] == "up").then_some(()) }).await;
    std::fs::remove_dir_all(site.path().join("packs/t")).unwrap();
    let (status, _) = server.post("/api/v1/reload", &json!({})).await;
    assert_eq!(status, 200);
    std::fs::write(&flag, "").unwrap();
    let ended = server.ended(&id).await;
    assert_eq!((text(&ended, "status"), &ended["result"]["stdout"]), ("succeeded", &json!("up\nstill here\n")));
    let all = output("").await;
    let texts: Vec<&str> = all["lines"].as_array().unwrap().iter().map(|line| text(line, "text")).collect();
    assert_eq!(texts, ["up", "still here"], "after the end the output is there as well");
    assert_eq!(output("attempt=1&after=2&wait=30").await["ended"], true);
}

#[tokio::test]
async fn tail_shows_every_line_and_answers_how_it_ended() {
    let talk = "#!/bin/sh\ni=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done\necho the password is sesame1 >&2\nexit $2\n";
    let metadata = "parameters:\n  code: {type: string, position: 0}\n  word: {type: string, secret: true, default: sesame1}\n";
    let shell = Shell::start(site("actions/talk.sh", &[("talk", metadata, talk)])).await;
    for (code, exit, status) in [("0", 0, "succeeded"), ("4", 1, "failed")] {
        let (_, execution) = shell.server.post("/api/v1/executions", &json!({"action": "t.talk", "parameters": {"code": code}})).await;
        let said = shell.say(&["execution", "tail", text(&execution, "id")]);
        let said = said.out(exit, &["line 0\n", "line 299\n", "the password is ********\n"]).err(exit, &[status]);
        assert!(!said.out.contains("sesame1"));
        let lines = said.out.lines().filter(|line| line.starts_with("line ")).count();
        assert!(
            lines == 300 || said.out.contains("lines are not kept") || said.err.contains("lines are not shown"),
            "{lines} lines:\n{}",
            said.err
        );
    }
}
