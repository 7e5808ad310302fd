//! Where a run's records come from: a file as it stands, or a copy of it as UTF-8 that is kept so that the run can be resumed.

use std::io::{Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use indicatif::MultiProgress;
use tokio::time::Instant;

use super::access::{Remedies, cannot_use, why_denied};
use super::encoding::label;
use super::flags::{InputFlags, RunFlags};
use super::input;
use super::opened::OpenedInput;
use super::preflight::{self, Admission, OddFile};
use super::settings::format;
use super::spool::{self, Incoming, Owner, Spool, incoming_path};
use crate::domain::figures::bytes;
use crate::domain::position::{FileStat, SourceFile};
use crate::io::files::file_id::FileId;
use crate::io::files::lock::{Lockfile, noted_files};
use crate::io::files::spool::{Room, SpoolError};
use crate::io::journal::checkpoint::{Checkpoint, RunKind, RunStatus};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::read_checkpoint;
use crate::io::roster::{self, ENCODING_FLAG, InputFile, Original, Roster};
use crate::io::source::Compression;
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::phase_bar::PhaseBar;

/// Where the records come from.
pub(super) struct Source {
    spool: Option<Spool>,
    /// The copy of a dry run.
    unnamed: Option<InputFile>,
    /// The copy that an unfinished run had, where the file is read as it stands by now.
    stale: Option<Spool>,
    file: PathBuf,
    /// The file that the copy was made of, if it can be looked at again.
    original: Option<Original>,
    /// The run that an earlier process has finished with this very file.
    finished: Option<Box<Checkpoint>>,
}

/// How a source is opened.
pub(super) struct SourceSettings<'a> {
    /// Of the run. A dry run has none, and makes no files.
    pub(super) lock: Option<&'a Lockfile>,
    pub(super) flags: &'a RunFlags,
    pub(super) paths: &'a RunPaths,
    /// Which files are let in, of those that are to be copied.
    pub(super) admission: Admission,
    pub(super) bars: &'a MultiProgress,
    /// Whether a finished run, which has read the same file in this way, stands for this one.
    pub(super) stands: &'a dyn Fn(&Checkpoint) -> bool,
}

impl Source {
    /// Opens what the flags name, and copies it if it can't be read twice as it stands.
    ///
    /// # Errors
    /// What is wrong with the file (2), or with the copy.
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, ExitMessage> {
        let SourceSettings { flags, paths, .. } = settings;
        let is_half = is_half(paths);
        // Of a stream the copy is begun before anything is waited for: that it can't be is known at once.
        let begins_now = input::is_stream(&flags.input.file).then_some(settings.lock).flatten();
        let incoming = begins_now.map(|lock| begin(&flags.input.file, paths, lock)).transpose()?;
        let opened = OpenedInput::open(&flags.input)?;
        opened.warning().into_iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut source = Self { spool: None, unnamed: None, stale: None, file: flags.input.file.clone(), original: None, finished: None };
        if opened.stands_as_it_is() {
            source.stale = stale_copy(paths, &flags.input.file);
            return Ok(source);
        }
        let known = if flags.restart { None } else { read_checkpoint(&OsDisk, paths) };
        if let Some(known) = &known
            && let Some(original) = known_original(&opened, known).map_err(|error| input::roster_error(&source.file, &error.into()))?
        {
            source.original = Some(original);
            if is_kept(known, settings) {
                source.spool = Some(Spool::kept(paths.spool()));
                return Ok(source);
            }
            if is_finished(&opened, known, settings) {
                // The process that has finished it may have been killed before it removed its copy.
                source.stale = stale_copy(paths, &flags.input.file);
                source.finished = Some(Box::new(known.clone()));
                return Ok(source);
            }
        }
        if opened.head().is_empty() && is_half && input::is_stream(&source.file) {
            return Err(refuse_half(&source.file));
        }
        let is_resumed = known.is_some_and(|known| known.state == RunStatus::Unfinished);
        if !is_resumed && !opened.head().is_empty() {
            judge(&opened, &flags.input, settings.admission)?;
        }
        if let Some(lock) = settings.lock {
            let incoming = incoming.map_or_else(|| begin(&source.file, paths, lock), Ok)?;
            source.spool(opened, incoming, settings)?;
        } else if opened.head().is_empty() && is_ours(paths) {
            source.spool = Some(Spool::kept(paths.spool()));
        } else {
            source.copy_for_now(opened, settings)?;
        }
        Ok(source)
    }

    /// Copies the text for a dry run, which has no lock: another process may be at work on the files of a run.
    fn copy_for_now(&mut self, opened: OpenedInput, settings: &SourceSettings) -> Result<(), ExitMessage> {
        let beside = settings.paths.spool();
        let gauge = PhaseBar::on_stderr(settings.flags.output.progress(), settings.bars, Instant::now());
        let unnamed = |text, on_progress: OnProgress| spool::unnamed(&beside, text, on_progress);
        let (copy, original) = copied(opened, (&self.file, &beside), gauge, unnamed)?;
        (self.unnamed, self.original) = (Some(InputFile::of(copy)), original);
        Ok(())
    }

    /// Opens what is to be read, with its stat fields before anything is read of it.
    pub(super) fn open(&self) -> Result<(InputFile, FileStat), ExitMessage> {
        let Some(unnamed) = &self.unnamed else { return input::open_file(self.path(), &self.file) };
        let stat = unnamed.fingerprint().map_err(|error| input::roster_error(&self.file, &error.into()))?;
        Ok((unnamed.clone(), stat))
    }

    /// Copies the text.
    fn spool(&mut self, opened: OpenedInput, incoming: Incoming, settings: &SourceSettings) -> Result<(), ExitMessage> {
        let kept = settings.paths.spool();
        let gauge = PhaseBar::on_stderr(settings.flags.output.progress(), settings.bars, Instant::now());
        let named = |text, on_progress: OnProgress| Spool::fill(incoming, text, on_progress);
        let (spool, original) = copied(opened, (&self.file, &kept), gauge, named)?;
        (self.spool, self.original) = (Some(spool), original);
        Ok(())
    }

    /// The run that an earlier process has finished with this very file, which then wasn't copied again.
    pub(super) fn finished(&self) -> Option<&Checkpoint> {
        self.finished.as_deref()
    }

    /// What a checkpoint remembers of the file that the copy was made of.
    pub(super) fn source_file(&self) -> Option<SourceFile> {
        self.original.as_ref().map(|original| original.source)
    }

    /// The file that the copy was made of, if it was made of one.
    pub(super) fn original(&self) -> Option<&Original> {
        self.original.as_ref()
    }

    /// The run has begun, and will be resumed from what is kept.
    pub(super) fn begins(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.begins();
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.spool.as_ref().map_or(&self.file, Spool::path)
    }

    /// The name of the file whose change is a change of the input: of what was copied, the one that was copied.
    pub(super) fn named(&self) -> &Path {
        match (&self.spool, &self.original) {
            (Some(spool), None) => spool.kept_path(),
            (None, _) | (Some(_), Some(_)) => &self.file,
        }
    }

    /// Whether nothing came in from what can't be read twice, now or earlier.
    pub(super) fn is_missing(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_empty)
    }

    /// Whether it took a file another name.
    pub(super) fn keep(&mut self) -> Result<bool, ExitMessage> {
        let Some(spool) = &mut self.spool else { return Ok(false) };
        spool.keep().map_err(|error| cannot_spool(&self.file, spool.path(), SpoolError::Disk(error)))
    }

    /// Deletes the copies of an input that cannot be read twice: this run needs them no more, nor those that an earlier one left.
    pub(super) fn discard_copies(&mut self) {
        self.spool.iter_mut().chain(&mut self.stale).for_each(Spool::discard_all);
    }

    /// Adds to the last word of a finished run what has become of the file meanwhile; `input` is what was read.
    pub(super) fn with_news(&self, word: ExitMessage, input: &InputFile) -> ExitMessage {
        match (&self.spool, &self.original) {
            (_, Some(original)) => input::with_new_file(word, &self.file, &original.file),
            (None, None) => input::with_new_file(word, &self.file, input),
            (Some(_), None) => word,
        }
    }
}

fn begin(file: &Path, paths: &RunPaths, lock: &Lockfile) -> Result<Incoming, ExitMessage> {
    let owner = Owner { lock, is_known: is_known_copy(paths) };
    Incoming::new(paths.spool(), owner).map_err(|error| cannot_spool(file, &paths.spool(), SpoolError::Disk(error)))
}

/// Whether the file under the copy's name is one that a run has kept there.
fn is_ours(paths: &RunPaths) -> bool {
    let found = FileId::at(&paths.spool()).ok().flatten();
    found.is_some_and(|found| is_known_copy(paths) || noted_files(&paths.lock()).contains(&found))
}

/// Whether the checkpoint knows the file under the copy's name, even if it was moved with the run to another disk.
fn is_known_copy(paths: &RunPaths) -> bool {
    let (Some(known), Ok(stat)) = (read_checkpoint(&OsDisk, paths), roster::fingerprint(&paths.spool())) else { return false };
    let is_moved = known.source.is_some() && (stat.len, stat.modified_ns) == (known.input.len, known.input.modified_ns);
    stat == known.input || is_moved
}

/// Who is told how much of a copy was written.
type OnProgress<'a> = &'a mut dyn FnMut(u64);

/// Copies an input with `copy` to a file at or beside `kept`. A file that has changed meanwhile is refused.
fn copied<T>(
    opened: OpenedInput,
    (file, kept): (&Path, &Path),
    mut gauge: PhaseBar,
    copy: impl FnOnce(Box<dyn Read>, OnProgress) -> Result<T, SpoolError>,
) -> Result<(T, Option<Original>), ExitMessage> {
    let failed = |error| cannot_spool(file, kept, error);
    if let Some(least) = opened.least_bytes() {
        Room::of(kept).map_err(SpoolError::Disk).and_then(|room| room.takes(least)).map_err(failed)?;
    }
    announce(&opened, file);
    let meter = opened.meter().clone();
    let regular = opened.regular().map(|(file, stat)| (file.clone(), stat));
    let whole = regular.as_ref().map_or(0, |(_, stat)| stat.len);
    let mut on_progress = |written| {
        let words = format!("{} copied", bytes(written));
        gauge.tell((meter.bytes(), whole), &words, "reading the input, nothing is sent yet", Instant::now());
    };
    let copy = copy(Box::new(opened.into_text()), &mut on_progress).map_err(failed)?;
    let original = regular.map(|(file, stat)| Original::of_read(&file, stat, meter.read())).transpose();
    Ok((copy, original.map_err(|error| input::roster_error(file, &error))?))
}

/// The input of a command that is never resumed, as a file that can be read as often as one likes: itself, or an unnamed copy beside the
/// results.
pub(super) struct Rereadable {
    pub(super) file: InputFile,
    /// Before anything was read of it.
    pub(super) stat: FileStat,
    /// What it is a copy of, if it is one of a file.
    pub(super) original: Option<Original>,
    is_copy: bool,
}

impl Rereadable {
    /// Opens what the flags name.
    ///
    /// # Errors
    /// What is wrong with the file (2), or with the copy.
    pub(super) fn open(flags: &InputFlags, results: &Path, gauge: PhaseBar) -> Result<Self, ExitMessage> {
        let opened = OpenedInput::open(flags)?;
        opened.warning().into_iter().for_each(|warning| tracing::warn!("{warning}"));
        if let Some((file, stat)) = opened.regular().filter(|_| opened.stands_as_it_is()) {
            return Ok(Self { file: file.clone(), stat, original: None, is_copy: false });
        }
        let unnamed = |text, on_progress: OnProgress| spool::unnamed(results, text, on_progress);
        let (copy, original) = copied(opened, (&flags.file, results), gauge, unnamed)?;
        let file = InputFile::of(copy);
        let stat = file.fingerprint().map_err(|error| input::roster_error(&flags.file, &error.into()))?;
        Ok(Self { file, stat, original, is_copy: true })
    }

    /// As [`Source::with_news`].
    pub(super) fn with_news(&self, word: ExitMessage, path: &Path) -> ExitMessage {
        match (&self.original, self.is_copy) {
            (Some(original), _) => input::with_new_file(word, path, &original.file),
            (None, false) => input::with_new_file(word, path, &self.file),
            (None, true) => word,
        }
    }
}

/// Whether the run that an earlier process has finished read this very text as it would be read now.
fn is_finished(opened: &OpenedInput, known: &Checkpoint, settings: &SourceSettings) -> bool {
    let format = format(&settings.flags.input);
    let reads_alike = || {
        let roster = Roster::new(Cursor::new(opened.head()), &format);
        roster.is_ok_and(|roster| roster.reading().differences(&known.reading).is_empty())
    };
    known.state == RunStatus::Finished && settings.paths.results.exists() && reads_alike() && (settings.stands)(known)
}

/// The file, if it is the one that the run of the checkpoint knows a copy of.
fn known_original(opened: &OpenedInput, known: &Checkpoint) -> std::io::Result<Option<Original>> {
    let (Some((file, _)), Some(source)) = (opened.regular(), known.source) else { return Ok(None) };
    Original::of_known(file, source)
}

/// The copy that a run has read and doesn't need any more, if there is one: an unfinished run of a file that is read as it stands from now
/// on, or a finished one.
fn stale_copy(paths: &RunPaths, file: &Path) -> Option<Spool> {
    let known = read_checkpoint(&OsDisk, paths)?;
    let copy = roster::fingerprint(&paths.spool()).ok()?;
    // An input may have the name that a copy would have: then it is nobody's copy.
    let is_input = roster::fingerprint(file).is_ok_and(|stat| stat.inode == copy.inode);
    // Of a finished run the file is a copy for certain only if the checkpoint knows what it is a copy of.
    let is_over = known.state == RunStatus::Unfinished || known.source.is_some();
    (is_over && copy == known.input && !is_input).then(|| Spool::kept(paths.spool()))
}

/// Whether the copy that the run has read is still there, and is still that one.
fn is_kept(known: &Checkpoint, settings: &SourceSettings) -> bool {
    let encoding = format(&settings.flags.input).encoding;
    // An import that is to be read in another encoding is refused, and told why, with the old copy as with any.
    let is_read_alike = known.work == RunKind::Import || known.reading.flags.get(ENCODING_FLAG) == encoding.as_ref();
    let is_there = || roster::fingerprint(&settings.paths.spool()).is_ok_and(|stat| stat == known.input);
    known.state == RunStatus::Unfinished && is_read_alike && is_there()
}

/// Whether a killed process has left a part of a copy, and none that is whole.
fn is_half(paths: &RunPaths) -> bool {
    let path = incoming_path(&paths.spool());
    let is_ours = FileId::at(&path).ok().flatten().is_some_and(|found| noted_files(&paths.lock()).contains(&found));
    let has_part = is_ours && std::fs::metadata(path).is_ok_and(|stat| stat.len() > 0);
    has_part && !paths.spool().exists()
}

/// Says what became of a stream of which nothing comes any more, and of which a killed process has left a part.
fn refuse_half(file: &Path) -> ExitMessage {
    let why = format!("{}: nothing came, and the copy that an earlier process has begun is not whole", input::shown(file));
    ExitMessage::yours(why, "give the whole input to the same command once more: it copies it anew")
}

/// Judges the first records of what is about to be copied.
fn judge(opened: &OpenedInput, flags: &InputFlags, admission: Admission) -> Result<(), ExitMessage> {
    let roster = Roster::new(Cursor::new(opened.judged()), &format(flags)).map_err(|error| input::roster_error(&flags.file, &error))?;
    // What is odd is told, or refused, once the records are read for good.
    preflight::judge(roster, flags, Admission { odd: OddFile::Told, ..admission }).map(|_| ())
}

fn announce(opened: &OpenedInput, file: &Path) {
    let contents = opened.contents();
    let what: Vec<String> = [
        (contents.compression != Compression::None).then(|| contents.compression.to_string()),
        (!contents.is_plain()).then(|| label(contents.encoding)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let what = if what.is_empty() { String::new() } else { format!(" ({})", what.join(", ")) };
    tracing::info!("{}{what} is first copied, as UTF-8, to where it can be read again", input::shown(file));
}

fn cannot_spool(file: &Path, path: &Path, error: SpoolError) -> ExitMessage {
    let error = match error {
        SpoolError::Input(error) => return input::roster_error(file, &error.into()),
        SpoolError::NoRoom { left, whole, least } => {
            let why = format!(
                "cannot copy {} to the folder of {}: that would leave {} of the file system's {} free, less than {}",
                input::shown(file),
                path.display(),
                bytes(left),
                bytes(whole),
                bytes(least)
            );
            return ExitMessage::new(Exit::Fatal, why, "it is kept beside the results: make room there, or name others with --results");
        }
        SpoolError::Disk(error) if error.kind() == ErrorKind::AlreadyExists => {
            let (name, path) = (input::shown(file), path.display());
            let why = format!("{name} would be copied to {path}, but that, or {path}.new, is there and is no copy of this run");
            return ExitMessage::yours(why, "move that file away, or name other results with --results");
        }
        SpoolError::Disk(error) => error,
    };
    let why = format!("cannot keep {} in {}: {error}{}", input::shown(file), path.display(), why_denied(path, &error));
    let place = "it is kept beside the results: check the folder and its permissions, or name another with --results";
    cannot_use(why, &error, Remedies { place, disk: "it is kept beside the results; make room there" })
}
