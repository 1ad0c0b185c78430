//! Actions in Python: what they are given, what comes back, and what hostile ones do to nobody else.

use serde_json::{Value, json};

use crate::harness::{Server, TestSite, eventually};

fn site(actions: &[(&str, &str, &str)]) -> TestSite {
    let pack = "ref: t\nconfig_schema: {url: {type: string, default: \"http://x\"}}\ncapabilities: {process: [python3], kv: read_write}\n";
    let site = TestSite::empty().file("packs/t/pack.yaml", pack);
    actions.iter().fold(site, |site, (name, metadata, script)| {
        let site = site.file(&format!("packs/t/actions/{name}.yaml"), &format!("runner_type: python-script\n{metadata}"));
        site.file(&format!("packs/t/actions/{name}.py"), script)
    })
}

fn text<'v>(execution: &'v Value, field: &str) -> &'v str {
    execution[field].as_str().unwrap_or_default()
}

fn log(execution: &Value) -> Vec<String> {
    execution["log"].as_array().into_iter().flatten().map(|line| format!("{}: {}", text(line, "level"), text(line, "text"))).collect()
}

#[tokio::test]
async fn functions_and_classes() {
    let who = "parameters: {who: {type: string, default: li}}\n";
    let class = "from st2common.runners.base_action import Action\n\nclass Hello(Action):\n    def run(self, who):\n        \
                 self.logger.info('hello %s', who)\n        print('printed')\n        return (True, {'who': who, 'url': self.config['url']})\n";
    let plain = "class Plain:\n    def __init__(self, config):\n        self.url = config['url']\n\n    def run(self, who):\n        return [self.url, who, self.context['action']]\n";
    let keys = "import signalman\n\ndef run(params):\n    signalman.kv.set('count', (signalman.kv.get('count') or 0) + 1)\n    return signalman.kv.get('count')\n";
    let environ = "import os\n\ndef run(params):\n    return sorted(os.environ)\n";
    let says_no = "def run(params):\n    return False, {'why': 'no'}\n";
    let site = site(&[
        ("class", who, class),
        ("plain", who, plain),
        ("keys", "", keys),
        ("environ", "", environ),
        ("says_no", "", says_no),
        ("function", who, "import helper\n\ndef run(params):\n    return helper.greet(params['who'])\n"),
    ])
    .file("packs/t/lib/helper.py", "def greet(who):\n    return 'hello ' + who\n");
    let server = Server::start(&site).await;
    let ended = server.run("t.class", json!({"who": "<b>{{x}}ü"})).await;
    assert_eq!(ended["result"], json!({"who": "<b>{{x}}ü", "url": "http://x"}), "{ended}");
    let mut said = log(&ended);
    said.sort();
    assert_eq!(said, ["info: hello <b>{{x}}ü", "stdout: printed"]);
    assert_eq!(server.run("t.plain", json!({})).await["result"], json!(["http://x", "li", "t.plain"]));
    assert_eq!(server.run("t.keys", json!({})).await["result"], 1);
    assert_eq!(server.run("t.keys", json!({})).await["result"], 2);
    let environ = server.run("t.environ", json!({"env": {"EXTRA": "1"}})).await;
    let names: Vec<&str> = environ["result"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"EXTRA") && names.contains(&"SIGNALMAN_EXECUTION") && !names.contains(&"HOME"), "{names:?}");
    let no = server.run("t.says_no", json!({})).await;
    assert_eq!((text(&no, "status"), text(&no, "error")), ("failed", "the script says that it failed: {\"why\":\"no\"}"));
    assert_eq!(no["result"], json!({"why": "no"}));
    assert_eq!(server.run("t.function", json!({"who": "a"})).await["result"], "hello a");
    site.write("packs/t/lib/helper.py", "def greet(who):\n    return 'good evening ' + who\n");
    assert_eq!(server.run("t.function", json!({"who": "a"})).await["result"], "good evening a", "a changed module is read again");
    site.write("packs/t/actions/function.py", "def run(params):\n    return 'changed'\n");
    assert_eq!(server.post("/api/v1/reload", &json!({})).await.0, 200);
    assert_eq!(server.run("t.function", json!({"who": "a"})).await["result"], "changed");
}

#[tokio::test]
async fn hostile_scripts() {
    // Name, metadata, script, status, reason, words of the error.
    let cases: &[(&str, &str, &str, &str, &str, &[&str])] = &[
        (
            "raises",
            "",
            "def run(params):\n    raise ValueError('bad value')\n",
            "failed",
            "action_failed",
            &["packs/t/actions/raises.py:2: ValueError: bad value\n     2 | raise ValueError('bad value')"],
        ),
        ("syntax", "", "def run(params):\n    return (\n", "failed", "script_broken", &["packs/t/actions/syntax.py:2:", "SyntaxError"]),
        (
            "missing",
            "",
            "import no_such_module\n\ndef run(params):\n    pass\n",
            "failed",
            "action_failed",
            &["missing.py:1: ModuleNotFoundError: No module named 'no_such_module'"],
        ),
        (
            "nothing",
            "",
            "running = 1\n",
            "failed",
            "script_broken",
            &["the script needs a function `run(params)` or one class with `run(self, …)`; it has none"],
        ),
        (
            "no_json",
            "",
            "def run(params):\n    return {1, 2}\n",
            "failed",
            "action_failed",
            &["the result cannot be written as JSON: Object of type set is not JSON serializable"],
        ),
        ("nan", "", "def run(params):\n    return float('nan')\n", "failed", "action_failed", &["the result cannot be written as JSON"]),
        ("surrogate", "", "def run(params):\n    return '\\ud800'\n", "failed", "action_failed", &["the result cannot be written as JSON"]),
        ("large", "", "def run(params):\n    return 'x' * 2000000\n", "failed", "output_too_large", &["the result has 2000"]),
        (
            "exits",
            "",
            "import os\n\ndef run(params):\n    os._exit(7)\n",
            "failed",
            "action_failed",
            &["the Python worker ended with code 7 while it ran the script"],
        ),
        (
            "segfault",
            "",
            "import os, signal\n\ndef run(params):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
            "failed",
            "action_failed",
            &["was ended by signal 11"],
        ),
        ("sysexit", "", "import sys\n\ndef run(params):\n    sys.exit(3)\n", "failed", "action_failed", &["sys.exit(3)"]),
        (
            "forever",
            "timeout: 500ms\n",
            "def run(params):\n    while True:\n        pass\n",
            "timed_out",
            "timed_out",
            &["longer than the action's `timeout`"],
        ),
        (
            "catches",
            "timeout: 500ms\n",
            "import signal, time\n\ndef run(params):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    while True:\n        try:\n            time.sleep(1)\n        except BaseException:\n            pass\n",
            "timed_out",
            "timed_out",
            &[],
        ),
        (
            "protocol",
            "",
            "import os\n\ndef run(params):\n    for n in range(3, 10):\n        try:\n            os.write(n, b'rubbish\\n')\n        except OSError:\n            pass\n    return 1\n",
            "failed",
            "action_failed",
            &["wrote into the pipe of its worker"],
        ),
        (
            "closes",
            "",
            "import os\n\ndef run(params):\n    os.closerange(0, 64)\n    return 1\n",
            "failed",
            "action_failed",
            &["the Python worker"],
        ),
        (
            "kv",
            "",
            "import signalman\n\ndef run(params):\n    signalman.kv.get('a', pack='other')\n",
            "failed",
            "action_failed",
            &["Refused: pack `t` may not read the keys of `other`; to allow it, add `kv: {own: read_write, other: read}`"],
        ),
    ];
    let good: &[(&str, &str, &str)] = &[
        (
            "replaces",
            "",
            "import sys, io, os\n\ndef run(params):\n    sys.stdout = io.StringIO()\n    print('{\"done\": {\"succeeded\": true}}')\n    sys.stdout = None\n    os.write(1, b'direct')\n    os.system('echo from a child; echo err >&2')\n    return 1\n",
        ),
        ("flood", "timeout: 2m\n", "def run(params):\n    for n in range(300000):\n        print('line', n)\n    return 'over'\n"),
        (
            "thread",
            "",
            "import threading, time\n\ndef run(params):\n    threading.Thread(target=lambda: [print('late') or time.sleep(0.01) for _ in range(10**6)], daemon=True).start()\n    return 1\n",
        ),
        ("fine", "", "def run(params):\n    return 'fine'\n"),
        ("moves", "", "import os\n\ndef run(params):\n    before = os.getcwd()\n    os.chdir('/')\n    return before\n"),
    ];
    let all: Vec<(&str, &str, &str)> = cases.iter().map(|case| (case.0, case.1, case.2)).chain(good.iter().copied()).collect();
    let site = site(&all);
    let server = Server::start(&site).await;
    for (name, _, _, status, reason, words) in cases {
        let ended = server.run(&format!("t.{name}"), json!({})).await;
        assert_eq!((text(&ended, "status"), text(&ended, "reason")), (*status, *reason), "{name}: {ended}");
        for words in *words {
            assert!(text(&ended, "error").contains(words), "{name}: {}", text(&ended, "error"));
        }
        assert_eq!(server.run("t.fine", json!({})).await["result"], "fine", "after {name}");
    }
    let replaced = server.run("t.replaces", json!({})).await;
    assert_eq!(replaced["result"], 1, "{replaced}");
    assert_eq!(log(&replaced), ["stdout: directfrom a child", "stdout: err"]);
    let flood = server.run("t.flood", json!({})).await;
    assert_eq!((&flood["result"], log(&flood).len()), (&json!("over"), 101));
    assert_eq!(log(&flood)[100], "stdout: line 299999");
    server.run("t.thread", json!({})).await;
    assert!(log(&server.run("t.fine", json!({})).await).is_empty(), "a thread that goes on does not write into the log of the next");
    let folder = site.path().join("packs/t").canonicalize().unwrap();
    for _ in 0..2 {
        assert_eq!(server.run("t.moves", json!({})).await["result"], json!(folder));
    }
}

#[tokio::test]
async fn workers_end_with_the_process_however_it_ends() {
    let script = "import os, time\n\ndef run(params):\n    print(os.getpid(), flush=True)\n    time.sleep(86400)\n";
    let site = site(&[("sleep", "timeout: 1h\n", script), ("pid", "", "import os\n\ndef run(params):\n    return os.getpid()\n")]);
    for kill in [true, false] {
        let server = Server::start(&site).await;
        let idle = server.run("t.pid", json!({})).await["result"].as_u64().unwrap();
        let again = server.run("t.pid", json!({})).await["result"].as_u64().unwrap();
        assert_eq!(idle, again, "the worker stays");
        let (_, execution) = server.post("/api/v1/executions", &json!({"action": "t.sleep"})).await;
        let id = text(&execution, "id").to_string();
        let busy = eventually("the first line", || async {
            let (_, output) = server.get(&format!("/api/v1/executions/{id}/output")).await;
            text(&output["lines"][0], "text").parse::<u64>().ok()
        })
        .await;
        if kill {
            server.kill();
        } else {
            server.post(&format!("/api/v1/executions/{id}/cancel"), &json!({})).await;
            assert_eq!(server.ended(&id).await["status"], "canceled");
            server.stop();
        }
        eventually("the workers to end", || async {
            let gone = |pid: u64| !std::path::Path::new(&format!("/proc/{pid}/cwd")).exists();
            (gone(idle) && gone(busy)).then_some(())
        })
        .await;
    }
}
