# What a Python worker runs: it takes one request after the other from its standard input, runs the action's script, and answers. Python 3.9
# or newer, nothing but the standard library. One JSON object a line in both directions; src/runners/python_script/worker.rs is the other end.
import sys

if sys.version_info < (3, 9):
    sys.stderr.write("Signalman needs Python 3.9 or newer; this is %d.%d\n" % sys.version_info[:2])
    sys.exit(1)

import inspect
import io
import json
import linecache
import logging
import os
import queue
import threading
import traceback
import types

# The protocol gets descriptors of its own. What the script and its children write to the usual ones, however they do it, is log.
REQUESTS = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
ANSWERS = os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)

inbox = queue.SimpleQueue()
asking = threading.Lock()


def listen():
    for line in REQUESTS:
        inbox.put(json.loads(line))
    # Whoever asks has gone; nobody would learn of what the script still does.
    os._exit(0)


def tell(answer):
    data = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    while data:
        data = data[os.write(ANSWERS, data):]


class Refused(Exception):
    """The engine did not do what was asked: a capability is missing, a value is too large, the store does not work."""


def ask(what, **more):
    with asking:
        tell({"ask": what, **more})
        answer = inbox.get()
    if "error" in answer:
        raise Refused(answer["error"])
    return answer.get("value")


class ToEngine(logging.Handler):
    LEVELS = [(logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info")]

    def emit(self, record):
        level = next((name for least, name in self.LEVELS if record.levelno >= least), "debug")
        text = self.format(record).encode("utf-8", "replace").decode("utf-8")
        with asking:
            tell({"log": level, "text": text[:16384]})


class Keys:
    """The pack's own keys, or with `pack` those of another that it may read."""

    def get(self, name, pack=None):
        return ask("get", name=name, pack=pack)

    def set(self, name, value):
        ask("set", name=name, value=value)

    def delete(self, name):
        ask("delete", name=name)


class ActionService:
    """What StackStorm calls `self.action_service`, as far as there is something behind it."""

    def get_value(self, name, local=True, **_):
        return signalman.kv.get(name)

    def set_value(self, name, value, local=True, **_):
        signalman.kv.set(name, value)

    def delete_value(self, name, local=True, **_):
        signalman.kv.delete(name)


class Action:
    """The base of an action that is a class: `run` gets the parameters by name, `self.config` and `self.logger` are there."""

    def __init__(self, config=None, action_service=None):
        self.config = signalman.config if config is None else config
        self.logger = signalman.logger
        self.context = signalman.context
        self.action_service = action_service or ActionService()


signalman = types.ModuleType("signalman", "What a Python action sees of Signalman.")
signalman.Action = Action
signalman.Refused = Refused
signalman.kv = Keys()
signalman.logger = logging.getLogger("action")
signalman.config, signalman.context = {}, {}
sys.modules["signalman"] = signalman
# Actions written for StackStorm find their base where they look for it.
for name in ("st2common", "st2common.runners", "st2common.runners.base_action"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["st2common.runners.base_action"].Action = Action

logging.basicConfig(level=logging.DEBUG, handlers=[ToEngine()], format="%(message)s")


class Broken(Exception):
    """The script has nothing that could be run."""


def load(request):
    source, file = request["source"], request["file"]
    module = types.ModuleType(request["module"])
    module.__file__ = request["path"]
    sys.modules[module.__name__] = module
    for folder in request["folders"]:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    # Tracebacks show the lines that were run, whatever the file has become since.
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    return entry(module)


def entry(module):
    if inspect.isfunction(getattr(module, "run", None)):
        return lambda params: module.run(params)
    own = [thing for thing in vars(module).values() if inspect.isclass(thing) and thing.__module__ == module.__name__]
    classes = [thing for thing in own if inspect.isfunction(getattr(thing, "run", None))]
    leaves = [one for one in classes if not any(other is not one and issubclass(other, one) for other in classes)]
    if len(leaves) != 1:
        found = ", ".join(one.__name__ for one in leaves) or "none"
        raise Broken("the script needs a function `run(params)` or one class with `run(self, …)`; it has " + found)
    return lambda params: instance(leaves[0]).run(**params)


def instance(action):
    if issubclass(action, Action):
        return action(config=signalman.config)
    made = action.__new__(action)
    Action.__init__(made)
    if action.__init__ is not object.__init__:
        takes_config = len(inspect.signature(action.__init__).parameters) > 1
        action.__init__(made, signalman.config) if takes_config else action.__init__(made)
    return made


loaded = {}
watched = {}
seen_modules = 0


def stamp(path):
    try:
        status = os.stat(path)
        return status.st_mtime_ns, status.st_size
    except OSError:
        return None


def watch(folder):
    """Notes how the modules of the pack that were imported look now."""
    global seen_modules
    if len(sys.modules) == seen_modules:
        return
    seen_modules = len(sys.modules)
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        is_action = getattr(module, "__name__", "").startswith("signalman_action_")
        if isinstance(path, str) and path.startswith(folder) and not is_action:
            watched.setdefault(path, stamp(path))


def is_stale():
    """Whether one of them has changed since."""
    return any(stamp(path) != known for path, known in watched.items())


def fault(error, file):
    """What went wrong, with the innermost place in the script."""
    what = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError) and error.filename:
        place, line = "%s:%s:%s" % (error.filename, error.lineno, error.offset), (error.text or "").rstrip()
        return "%s: %s\n  %4d | %s" % (place, what, error.lineno or 0, line)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    if not own:
        return "%s: %s" % (file, what)
    frame = own[-1]
    return "%s:%d: %s\n  %4d | %s" % (file, frame.lineno, what, frame.lineno, (frame.line or "").rstrip())


def streams():
    raw = io.FileIO(1, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def attempt(request):
    file = request["file"]
    try:
        if file not in loaded:
            loaded[file] = load(request)
        result = loaded[file](request["params"])
        succeeded = True
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], bool):
            succeeded, result = result
        return {"succeeded": succeeded, "result": result}
    except SystemExit as error:
        if error.code in (None, 0):
            return {"succeeded": True, "result": None}
        return {"error": "%s: it ended itself: sys.exit(%r)" % (file, error.code), "again": True}
    except BaseException as error:
        was_loaded = file in loaded
        if not was_loaded or not isinstance(error, (SyntaxError, Broken)):
            frames = [frame for frame in traceback.format_exception(type(error), error, error.__traceback__) if '"<string>"' not in frame]
            for line in "".join(frames).rstrip().splitlines()[:40]:
                signalman.logger.error("%s", line)
        broken = not was_loaded and isinstance(error, (SyntaxError, Broken))
        again = was_loaded or not isinstance(error, (SyntaxError, Broken, ImportError))
        if isinstance(error, Broken):
            return {"error": "%s: %s" % (file, error), "broken": True, "again": False}
        return {"error": fault(error, file), "broken": broken, "again": again}


def written(answer, limit):
    """The answer as it may be sent: what has no JSON, or is too large, becomes an error."""
    try:
        size = len(json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        return {"error": "the result cannot be written as JSON: %s" % error, "again": False}
    if size > limit:
        return {"error": "the result has %d bytes, and may have %d" % (size, limit), "too_large": True, "again": False}
    return answer


def main():
    threading.Thread(target=listen, daemon=True).start()
    environment, arguments, path = dict(os.environ), list(sys.argv), None
    while True:
        request = inbox.get()
        if is_stale():
            tell({"stale": True})
            return
        tell({"began": True})
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(environment, **request["env"])
        signalman.config, signalman.context = request["config"], request["context"]
        # Each attempt finds them as if it were the first, whatever the one before has put there.
        ours = (streams(), streams())
        sys.stdin, (sys.stdout, sys.stderr), sys.argv = io.StringIO(), ours, arguments
        answer = written(attempt(request), request["limit"])
        watch(request["folder"] + os.sep)
        for stream in ours + (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        # The output has come as far as this; the engine reads up to here before it takes the answer.
        try:
            os.write(2, ("\0%s\n" % request["mark"]).encode())
        except OSError:
            answer["retire"] = True
        # A thread that goes on would write into the log of the next attempt.
        answer["retire"] = answer.get("retire", False) or threading.active_count() > 2
        with asking:
            tell({"done": answer})


main()
