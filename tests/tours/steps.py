"""Steps of a tour: told one by one, run a few at a time, counted at the end.

A script collects its steps with `@step("what it shows")`, each a function that raises when the broker
does not do it, and ends with `run(...)`. Steps choose client ids and topics of their own with `name()`,
so that they do not meet. What waits for seconds waits beside the others.
"""

import argparse
import itertools
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

PATIENCE_S = 20
_steps = []
_numbers = itertools.count(1)
_output = threading.Lock()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", required=True, help="HOST:PORT where publishers connect")
    parser.add_argument("--subscribe", required=True, help="HOST:PORT where subscribers connect")
    parser.add_argument("--restart", help="HOST:PORT of a node that is restarted on the line '@restart'")
    parser.add_argument("--version", type=int, choices=[3, 4, 5], default=5)
    parser.add_argument("--transport", choices=["tcp", "websockets"], default="tcp")
    parser.add_argument("--ca", help="certificate authority; makes it TLS")
    parser.add_argument("--login", help="USER:PASSWORD")
    parser.add_argument("--title", required=True)
    return parser.parse_args()


ARGS = arguments()
TWO_NODES = ARGS.publish != ARGS.subscribe


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def name(what="c"):
    """A client id or topic that nobody else uses."""
    return f"{what}-{os.getpid()}-{next(_numbers)}"


def step(what, versions=(3, 4, 5), two_nodes=False, needs=None, raw=False):
    """A step for these versions; `two_nodes`: also when publisher and subscriber are on different nodes.

    `needs`: only with that argument, and with `--login` only steps that need it. `raw`: only over plain TCP.
    """
    wanted = ARGS.version in versions and (two_nodes or not TWO_NODES)
    wanted = wanted and (needs is None or getattr(ARGS, needs)) and (needs == "login" or not ARGS.login)
    plain = ARGS.transport == "tcp" and not ARGS.ca

    def keep(function):
        if wanted and (plain or not raw):
            _steps.append((what, function))
        return function

    return keep


def say(text):
    with _output:
        print(text, flush=True)


def same(got, wanted, what="it"):
    if got != wanted:
        raise AssertionError(f"{what} is {got!r} and not {wanted!r}")


def holds(condition, sentence):
    if not condition:
        raise AssertionError(sentence)


def until(what, condition, patience_s=PATIENCE_S):
    """Waits for something that only looking can tell."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


_restarted = threading.Event()


def restart_node():
    """Has the runner restart the node of `--restart`; returns when it is up."""
    say("@restart")
    sys.stdin.readline()


def attempt(what, function):
    began = time.monotonic()
    try:
        function()
    except BaseException as error:  # a step that fails must not end the others
        say(f"not ok {ARGS.title}: {what}: {type(error).__name__}: {error}")
        for line in traceback.format_exc().splitlines():
            say(f"  # {line}")
        return False
    say(f"ok {ARGS.title}: {what} ({time.monotonic() - began:.1f} s)")
    return True


def finish(results):
    passed = sum(results)
    say(f"{passed} passed, {len(results) - passed} failed")
    sys.stdout.flush()
    os._exit(0 if results and all(results) else 1)


def run(at_once=6):
    with ThreadPoolExecutor(at_once) as pool:
        finish(list(pool.map(lambda one: attempt(*one), _steps)))


def collected():
    return list(_steps)
