# SPDX-License-Identifier: GPL-2.0-only
import argparse, logging, os, re, shlex, subprocess, sys, threading, time

os.chdir(os.path.realpath(__file__).split("tools/testing/kunit")[0])
parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command")
for name in ("config", "exec"):
    command = commands.add_parser(name)
    command.add_argument("--arch")
    command.add_argument("--build_dir")
    command.add_argument("--kunitconfig", action="append")
commands.choices["exec"].add_argument("--timeout", type=int)
commands.choices["exec"].add_argument("--raw_output", choices=["all", "kunit"])
commands.choices["exec"].add_argument("filter_glob", nargs="?", default="")
args = parser.parse_args()
if "TOY_TRACE" in os.environ:
    with open(os.environ["TOY_TRACE"], "a") as trace:
        trace.write(f"kunit.py {args.command}\n")


def say(text):
    print(time.strftime("[%H:%M:%S] ") + text)


class ConfigError(Exception):
    pass


def parse(path):
    entries = {}
    for line in map(str.strip, open(path)):
        match = re.match(r'CONFIG_(\w+)=(\S+|".*")$|# CONFIG_(\w+) is not set$', line)
        if match:
            entries[match[1] or match[3]] = match[2] or "n"
        elif line and line[0] != "#":
            raise ConfigError("Failed to parse: " + line)
    return entries


def configure():
    say("Configuring KUnit Kernel ...")
    config = os.path.join(args.build_dir, ".config")
    print("Generating .config ...")
    with open(config, "w") as file:
        for name, value in wanted.items():
            line = f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"
            file.write(line + "\n")
    if os.environ.get("TOY_STALL") == "config":
        open(os.environ["TOY_STALLED"], "w").close()
        time.sleep(600)
    make = ["make", "ARCH=" + args.arch, "O=" + args.build_dir, "olddefconfig"]
    print("Populating config with:\n$", " ".join(make))
    try:
        subprocess.check_output(make, stderr=subprocess.STDOUT)
    except OSError as error:
        logging.error("Could not call make command: " + str(error))
        return False
    except subprocess.CalledProcessError as error:
        logging.error(error.output.decode())
        return False
    got = parse(config)
    lost = [name for name, value in wanted.items() if got.get(name, "n") != value]
    if lost:
        logging.error("Not all Kconfig options selected in kunitconfig were in the generated"
                      " .config.\nMissing: " + ", ".join(f"CONFIG_{name}=y" for name in lost))
    return not lost


def boot():
    say("Starting KUnit Kernel (1/1)...")
    words = [os.path.join(args.build_dir, "linux")]
    if args.filter_glob:
        words.append("kunit.filter_glob=" + args.filter_glob)
    words += ["kunit.enable=1", "mem=1G", "console=tty", "kunit_shutdown=halt"]
    print("Running tests with:\n$", shlex.join(words))
    kernel = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="backslashreplace")

    def wait():
        try:
            kernel.wait(args.timeout)
        except Exception as error:
            print(error)
            kernel.terminate()
            kernel.wait()

    waiter = threading.Thread(target=wait)
    waiter.start()
    with open(os.path.join(args.build_dir, "test.log"), "w") as log:
        for line in kernel.stdout:
            log.write(line)
            print(line.rstrip())
    waiter.join()
    return True


wanted = {}
for path in args.kunitconfig or [os.path.join(args.build_dir, ".kunitconfig")]:
    for name, value in parse(path).items():
        if wanted.setdefault(name, value) != value:
            raise ConfigError("Multiple values specified for 1 options in kunitconfig:\n"
                              f"CONFIG_{name}={wanted[name]}\n  vs from {path}\n"
                              f"CONFIG_{name}={value}")
begin = time.time()
good = configure() if args.command == "config" else boot()
say(f"Elapsed time: {time.time() - begin:.3f}s\n")
sys.exit(not good)
