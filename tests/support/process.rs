//! Child processes that tests can freeze and kill, and what this process itself uses.

#![allow(unsafe_code, reason = "signals and pidfd, each with its argument")]

use std::ffi::c_int;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A child process with its standard output as lines and its standard input open for more.
///
/// Dropping it kills and reaps it. It also dies when this process dies, however that happens.
pub struct Child {
    inner: process::Child,
    lines: Receiver<String>,
    skipped: Vec<String>,
}

impl Child {
    /// A command that runs the current executable: a test binary that runs one of its tests as a
    /// child process, for example.
    ///
    /// # Errors
    ///
    /// Where the path of the executable cannot be determined.
    pub fn current_exe() -> io::Result<Command> {
        std::env::current_exe().map(Command::new)
    }

    /// Starts the command, with standard input and output piped to this process and standard error
    /// left as the command has it.
    ///
    /// # Errors
    ///
    /// Those of `Command::spawn`.
    pub fn spawn(mut command: Command) -> io::Result<Child> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut inner = spawn_in_lasting_thread(command)?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = inner.stdout.take() {
            let reader = thread::Builder::new().name("child-lines".into());
            let started = reader.spawn(move || forward_lines(BufReader::new(stdout), &sender));
            if let Err(error) = started {
                let _ = inner.kill();
                let _ = inner.wait();
                return Err(error);
            }
        }
        Ok(Child { inner, lines, skipped: Vec::new() })
    }

    /// The process id. Not valid any more once the exit status has been seen.
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// Stops the process (SIGSTOP), and returns when all its threads stand still. Its kernel side
    /// lives on: TCP is acknowledged, connections are accepted into the backlog.
    ///
    /// # Errors
    ///
    /// Where the process has ended.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.signal(libc::SIGSTOP)?;
        self.wait_stopped()
    }

    /// Lets a frozen process carry on (SIGCONT).
    ///
    /// # Errors
    ///
    /// Where the process has ended.
    pub fn thaw(&mut self) -> io::Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Kills the process (SIGKILL), frozen or not, and reaps it. Its kernel closes its sockets:
    /// peers see FIN, or RST where input was unread. No error if it has ended already.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.inner.kill()?;
        self.inner.wait()
    }

    /// Asks the process to end (SIGTERM). A frozen one gets to know when it is thawed.
    ///
    /// # Errors
    ///
    /// Where the process has ended.
    pub fn terminate(&mut self) -> io::Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Waits for the process to end, and reaps it. `None`: it runs on.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn wait_exit(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now().checked_add(timeout);
        let fd = match self.inner.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None => pidfd(self.inner.id())?,
        };
        loop {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            let millis = left.as_nanos().div_ceil(1_000_000);
            let millis = c_int::try_from(millis).unwrap_or(c_int::MAX);
            let mut slot = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one slot, which outlives the call.
            unsafe { libc::poll(&raw mut slot, 1, millis) };
            let status = self.inner.try_wait()?;
            if status.is_some() || left.is_zero() {
                return Ok(status);
            }
        }
    }

    /// Writes a line to the child's standard input.
    ///
    /// # Errors
    ///
    /// Where the child has closed it.
    pub fn send_line(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.inner.stdin.as_mut();
        let stdin = stdin.ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        stdin.flush()
    }

    /// Ends the child's standard input, which is a portable way to ask it to end.
    pub fn close_stdin(&mut self) {
        self.inner.stdin = None;
    }

    /// Takes lines up to and including the first one that fulfils the condition. `None`: there was
    /// none in time, or the child has closed its output. The lines before it are in
    /// [`Child::skipped`].
    pub fn wait_line(&mut self, timeout: Duration, condition: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            match self.lines.recv_timeout(left) {
                Ok(line) if condition(&line) => return Some(line),
                Ok(line) => self.skipped.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// All lines that nobody has taken yet, in their order. Ends when the child, and all that
    /// inherited its output, have closed it.
    pub fn lines(&self) -> &Receiver<String> {
        &self.lines
    }

    /// The lines that [`Child::wait_line`] has passed over so far: the story, for a failed test.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The id cannot have been reused, for nobody but `inner` reaps the process.
    fn signal(&mut self, signal: c_int) -> io::Result<()> {
        if self.inner.try_wait()?.is_some() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: no pointers involved.
        done(unsafe { libc::kill(self.inner.id().cast_signed(), signal) })
    }

    fn wait_stopped(&self) -> io::Result<()> {
        // SAFETY: a plain C struct of integers, for which zero is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // Leaves an exit status for `inner` to reap; for a stop it makes no difference.
        let events = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        loop {
            // SAFETY: `info` outlives the call.
            let waited = unsafe { libc::waitid(libc::P_PID, self.inner.id(), &raw mut info, events) };
            match done(waited) {
                Ok(()) if info.si_code == libc::CLD_STOPPED => return Ok(()),
                Ok(()) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Threads of this process. One that was joined may be counted for some microseconds more, until
/// the kernel has taken it out of the list: wait for the number rather than look once.
///
/// # Errors
///
/// Those of reading /proc.
pub fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// The names of the library's threads in this process, which all begin with `ub-`. Those of the test harness
/// come and go on their own.
///
/// # Errors
///
/// Those of reading /proc.
pub fn library_thread_names() -> io::Result<Vec<String>> {
    let tasks = fs::read_dir("/proc/self/task")?;
    // A thread that has ended meanwhile has no name.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Ok(names.filter(|name| name.starts_with("ub-")).map(|name| name.trim_end().to_owned()).collect())
}

/// How many threads of the library there are in this process.
///
/// # Errors
///
/// Those of reading /proc.
pub fn library_threads() -> io::Result<usize> {
    Ok(library_thread_names()?.len())
}

/// Open descriptors of this process.
///
/// # Errors
///
/// Those of reading /proc, which needs a descriptor itself.
pub fn fds() -> io::Result<usize> {
    // One of them is the directory that is being read.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Memory of this process that is resident, in bytes.
///
/// # Errors
///
/// Those of reading /proc.
pub fn resident_bytes() -> io::Result<usize> {
    // Exact, where /proc/self/statm lags by up to some hundred KiB.
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<usize>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The kernel sends the signal when the *thread* that forked ends: hence the lasting thread below.
fn die_with_parent(command: &mut Command) {
    let parent = process::id();
    let hook = move || {
        // SAFETY: no pointers involved.
        done(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // The parent may have died before the call, and then no signal comes.
        // SAFETY: always succeeds, and has no arguments.
        if unsafe { libc::getppid() }.cast_unsigned() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the hook only makes async-signal-safe system calls, and does not allocate.
    unsafe { command.pre_exec(hook) };
}

type Job = (Command, SyncSender<io::Result<process::Child>>);

/// Spawns from a thread that lasts as long as this process.
fn spawn_in_lasting_thread(command: Command) -> io::Result<process::Child> {
    static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        // Where no thread can be had, `jobs` is dropped, and the send below fails.
        let _ = thread::Builder::new().name("child-spawn".into()).spawn(move || {
            for (mut command, reply) in jobs {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::sync_channel(1);
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = || io::Error::other("no thread to spawn children from");
    jobs.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn forward_lines(output: impl BufRead, lines: &Sender<String>) {
    for line in output.split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        // Nobody takes lines any more, but a full pipe would block the child.
        let _ = lines.send(line);
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = c_int::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The error of a system call that returns -1 on failure.
fn done(result: c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
