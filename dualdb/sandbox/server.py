"""One private MariaDB or MySQL server on loopback."""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
import weakref
from typing import Any, Dict, List, Optional

import pymysql
import pymysql.cursors

# MySQL refuses to start if the packaged --secure-file-priv directory is missing.
_MYSQL = ["--innodb-redo-log-capacity=8M", "--secure-file-priv=NULL"]
_START_SECONDS = 60.0
_SBIN = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin"])


class ServerMissing(RuntimeError):
    """No MariaDB or MySQL server is installed."""


def which(*names: str) -> Optional[str]:
    """Return the path of the first of these programs.

    PATH is searched, and then the usual directories of servers.
    """
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=_SBIN)
        if found:
            return found
    return None


class Engine:
    """The installed server program, and its command line.

    Args:
        program: The program; by default ``mariadbd`` or else ``mysqld`` on PATH.

    Raises:
        ServerMissing: No server is installed.

    Attributes:
        program: The program's path.
        is_mariadb: Whether it is MariaDB's.
        root_password: The password of root in data directories made by ``prepare``.
            Without one, any local user could log in as root.
    """

    def __init__(self, program: Optional[str] = None) -> None:
        found = program or which("mariadbd", "mysqld")
        if found is None:
            raise ServerMissing(
                "no MariaDB or MySQL server on PATH: install one "
                "(Debian and Ubuntu: apt-get install mariadb-server)"
            )
        self.program: str = found
        version = subprocess.run(
            [found, "--no-defaults", "--version"], capture_output=True, text=True, check=False
        )
        if version.returncode != 0:
            raise ServerMissing(
                f"{found} --version failed: {(version.stderr or version.stdout).strip()}"
            )
        self.is_mariadb = "mariadb" in version.stdout.lower()
        self.root_password = secrets.token_urlsafe(18)
        # A server refuses to run as root unless an option allows it.
        self._user = ["--user=root"] if os.geteuid() == 0 else []

    def prepare(self, datadir: str) -> None:
        """Make a data directory with the system tables and one account, root@localhost
        with ``root_password``.

        Args:
            datadir: The directory to make, in one that only this user can enter.

        Raises:
            ServerMissing: A program of the server's package is missing.
            RuntimeError: The program failed; with the end of its output.
        """
        password = f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self.root_password}';\n"
        if not self.is_mariadb:
            script = f"{datadir}.sql"
            with open(script, "w", encoding="ascii", opener=_private) as file:
                file.write(password)
            command = [self.program, "--no-defaults", f"--datadir={datadir}", *_MYSQL]
            self._run([*command, "--initialize-insecure", f"--init-file={script}"], datadir)
            os.unlink(script)
            return
        install = which("mariadb-install-db", "mysql_install_db")
        if install is None:
            raise ServerMissing(
                "mariadb-install-db is missing: it comes with the server's package "
                "(apt-get install mariadb-server)"
            )
        small = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M"]
        command = [install, "--no-defaults", f"--datadir={datadir}", *small]
        self._run([*command, "--auth-root-authentication-method=normal", "--skip-test-db"], datadir)
        # In bootstrap mode, without network, so that an account without a password is
        # never reachable.
        accounts = (
            "DELETE FROM mysql.global_priv WHERE User <> 'mariadb.sys' "
            "AND NOT (User = 'root' AND Host = 'localhost');\n"
        )
        flush = "FLUSH PRIVILEGES;\n"
        command = [self.program, "--no-defaults", f"--datadir={datadir}", "--bootstrap", *small]
        self._run(command, datadir, flush + accounts + flush + password)

    def _run(self, command: List[str], datadir: str, script: Optional[str] = None) -> None:
        made = subprocess.run(
            command + self._user,
            env=self.environment(os.path.dirname(datadir)),
            input="" if script is None else script,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{(made.stdout + made.stderr)[-2000:]}")

    @staticmethod
    def environment(directory: str) -> Dict[str, str]:
        """Return the environment of a server that uses this directory."""
        # Separate, because a starting server deletes temporary tables in its TMPDIR,
        # including those of other servers.
        return {**os.environ, "TMPDIR": directory}

    def command(self, directory: str, port: int, options: List[str]) -> List[str]:
        """Return the command line of a server.

        Args:
            directory: The directory with its data.
            port: Its TCP port.
            options: Further options.
        """
        command = [
            self.program,
            "--no-defaults",
            f"--datadir={directory}/data",
            f"--socket={directory}/s",
            f"--pid-file={directory}/pid",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=2",
            "--max-connections=300",
        ]
        command += (
            ["--innodb-log-file-size=8M"]
            if self.is_mariadb
            else [*_MYSQL, "--skip-log-bin", "--mysqlx=OFF"]
        )
        return command + self._user + options


class Server:
    """A server that can be started, stopped, killed and paused.

    Its data stays in its directory until the sandbox is removed.

    Args:
        engine: The server program.
        name: Its name, for messages.
        directory: The directory with its data.
        options: Further options.
    """

    host = "127.0.0.1"

    def __init__(
        self, engine: Engine, name: str, directory: str, options: Optional[List[str]] = None
    ) -> None:
        self.name = name
        self.directory = directory
        self.port = 0
        self._engine = engine
        self._options = options or []
        self._process: Optional[subprocess.Popen[bytes]] = None

    def __repr__(self) -> str:
        state = "up" if self.is_running else "down"
        return f"<Server {self.name} on {self.host}:{self.port}, {state}>"

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process without waiting; ``wait`` waits until it responds.

        A restart keeps the port.
        """
        if not self.is_running:
            self._launch([])

    def _command(self) -> List[str]:
        """Return the command line that starts it."""
        return self._engine.command(self.directory, self.port, self._options)

    def _launch(self, options: List[str]) -> None:
        if not self.port:
            self.port = free_port(self)
        self._write_root_options()
        # In a new session, so that Ctrl-C does not reach the servers.
        with open(f"{self.directory}/log", "ab", opener=_private) as log:
            self._process = subprocess.Popen(
                [*self._command(), *options],
                env=self._engine.environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def root_options(self) -> str:
        """An option file with which ``mariadb --defaults-file=FILE`` logs in as root.
        Only the user who started the server can read it.
        """
        return f"{self.directory}/root.cnf"

    def _write_root_options(self) -> None:
        with open(self.root_options, "w", encoding="utf-8", opener=_private) as file:
            file.write(
                f"[client]\nuser=root\npassword={self._engine.root_password}\n"
                f"socket={self.directory}/s\n"
            )

    def wait(self) -> None:
        """Wait until the server responds.

        Raises:
            RuntimeError: It has exited, or does not respond within 60 seconds; with the
                end of its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                # A server opens its port and its socket file in that order, when it is
                # ready to serve both.
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(f"{self.directory}/s")
                self.admin().close()
                return
            except (OSError, pymysql.err.OperationalError) as error:
                if not self.is_running or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the server {self.name} did not start ({error.args[-1]}):\n"
                        f"{self.log()[-2000:]}"
                    ) from None
            time.sleep(0.02)

    def start(self) -> None:
        """Start the process, and wait until the server responds."""
        self.launch()
        self.wait()

    def stop(self) -> None:
        """Shut down cleanly (SIGTERM), and wait for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process (SIGKILL), as in a crash."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Suspend the process: connections stay open without any response."""
        self._signal(signal.SIGSTOP)
        # Its threads may run on for a moment after the signal has been sent.
        if self._process is not None and self.is_running:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Continue a suspended process."""
        self._signal(signal.SIGCONT)

    def admin(self, database: Optional[str] = None) -> Any:
        """Return a PyMySQL connection as root, in autocommit mode, with dict rows.

        Args:
            database: The current database; None for none.
        """
        return pymysql.connect(
            unix_socket=f"{self.directory}/s",
            user="root",
            password=self._engine.root_password,
            database=database,
            autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
            # not needed on a unix socket; loading the system's CA certificates takes 20
            # ms
            ssl_disabled=True,
        )

    def run(self, *statements: str, database: Optional[str] = None) -> List[Any]:
        """Run statements as root.

        Args:
            statements: The statements.
            database: The current database; None for none.

        Returns:
            The rows of the last statement, as dicts.
        """
        with self.admin(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def log(self) -> str:
        """Return the server's log."""
        try:
            with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _end(self, number: int) -> None:
        self._signal(number)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def free_port(holder: object) -> int:
    """Reserve a TCP port of 127.0.0.1 for the lifetime of ``holder``.

    Other sandboxes do not use it. It is below 30,000, outside of the ephemeral ports
    (32,768 and up on Linux), one of which might be taken while the server restarts. The
    UDP port of the same number serves as the lock between processes.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket(type=socket.SOCK_DGRAM) as lock, socket.socket() as probe:
            try:
                lock.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            weakref.finalize(holder, os.close, lock.detach())
            return port
