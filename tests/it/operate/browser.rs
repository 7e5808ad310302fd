//! The page of a run as a browser shows it: Debian's Chromium, headless. Without it, these tests say so and prove nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chatlift::sandbox::{Sandbox, SandboxSettings};

use super::report::{SCRIPT, asks_for_nothing, requests};
use super::status_server::{get, serving};
use crate::support::server::{Server, code, imported};
use crate::support::tools::{program, skipped};
use crate::support::{CliFixture, KEY, eventually, users};

/// How long a page lives in the browser's own time, which does not pass while it waits for an answer.
const LIVES_MS: u32 = 7_000;

/// A page as the browser has it.
struct Page {
    dom: String,
}

/// Opens a page; `None` without a browser. Nothing may be complained about on its console.
fn open(url: &str) -> Option<Page> {
    let Some(chromium) = program("chromium") else {
        skipped("a page in a browser", "chromium is not installed");
        return None;
    };
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(chromium);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"]);
    // A page beside a report may measure it.
    command.arg("--allow-file-access-from-files");
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(format!("--virtual-time-budget={LIVES_MS}"));
    command.args(["--enable-logging=stderr", "--dump-dom", url]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(dom.contains("</html>"), "{dom}\n{log}");
    Some(Page { dom })
}

impl Page {
    /// The places of the line of this colour in a plot, in the drawing for wide screens.
    fn line(&self, plot: &str, colour: &str) -> Vec<(f64, f64)> {
        let plot = &self.dom[self.dom.find(&format!("id=\"plot-{plot}\"")).unwrap()..];
        let wide = &plot[plot.find("class=\"wide\"").unwrap()..plot.find("class=\"narrow\"").unwrap()];
        let line = wide.split("<polyline").find(|line| line.contains(&format!("stroke=\"{colour}\""))).unwrap();
        let points = line.split_once("points=\"").unwrap().1.split('"').next().unwrap();
        let place = |point: &str| point.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
        points.split_whitespace().map(place).collect()
    }

    /// Where the labels of the values are, with what they say.
    fn labels(&self, plot: &str) -> Vec<(f64, f64)> {
        let plot = &self.dom[self.dom.find(&format!("id=\"plot-{plot}\"")).unwrap()..];
        let wide = &plot[plot.find("class=\"wide\"").unwrap()..plot.find("class=\"narrow\"").unwrap()];
        let attribute = |text: &str, name: &str| text.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap().to_owned();
        let right: Vec<_> = wide.split("<text").skip(1).filter(|text| attribute(text, "text-anchor") == "end").collect();
        let label = |text: &&str| text.split_once('>').unwrap().1.split('<').next().unwrap().trim().replace(',', "").parse().unwrap();
        right.iter().map(|text| (attribute(text, " y").parse().unwrap(), label(text))).collect()
    }
}

#[test]
fn a_report_shows_what_the_service_counted_and_takes_no_user_id_for_a_script() {
    let bench = CliFixture::new();
    let sandbox = Sandbox::start(SandboxSettings::with_key(KEY.into())).unwrap();
    bench.write("users.csv", users(400) + &format!("{SCRIPT}\u{e9},x\n"));
    let call = bench.quiet_import_into("users.csv", &format!("http://{}", sandbox.address()));
    call.args(&["--report", "report.html"]).run().exits(3);
    let calls = sandbox.audit().calls;
    let Some(page) = open(&format!("file://{}", bench.path("report.html").display())) else { return };
    assert_eq!(requests(&page.dom), calls, "the table behind the plots");
    // The line is a stair: the area below it is the number of requests. The axis says what a place means.
    let (line, labels) = (page.line("calls", "#1D4ED8"), page.labels("calls"));
    let ((zero_y, zero), (top_y, top)) = (labels[0], labels[labels.len() - 1]);
    let per_s = |y: f64| zero + (zero_y - y) / (zero_y - top_y) * (top - zero);
    let (begin, end) = (line[0].0, line[line.len() - 1].0);
    let seconds = lasted_s(&page.dom);
    let drawn: f64 = line.windows(2).map(|pair| (pair[1].0 - pair[0].0) / (end - begin) * seconds * per_s(pair[0].1)).sum();
    assert!((drawn - calls as f64).abs() < calls as f64 * 0.03, "{drawn} of {calls}");
    assert!(!page.dom.contains("<script") && page.dom.contains("&lt;script&gt;alert(1)"), "it stays text");
    asks_for_nothing(&bench.read("report.html"));
}

/// How long the run lasted by the last of its points, in seconds.
fn lasted_s(dom: &str) -> f64 {
    let last = dom.rsplit("<time datetime=\"PT").next().unwrap();
    last[..last.find('S').unwrap()].parse().unwrap()
}

/// Hands connections on to the server of a run, each after a pause, and keeps what it answered.
fn hand_on(address: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, answers) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&answers);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut client) = stream else { return };
            let Some(answer) = handed_on(&mut client, &address) else { continue };
            kept.lock().unwrap().push(answer);
        }
    });
    (own, answers)
}

fn handed_on(client: &mut TcpStream, address: &str) -> Option<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    std::thread::park_timeout(Duration::from_millis(300));
    let mut server = TcpStream::connect(address).ok()?;
    server.write_all(&request).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    client.write_all(&answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// How many rows a page says are done.
fn done(page: &str) -> u64 {
    let progress = page.split_once("id=\"done\" value=\"").unwrap().1;
    progress.split('"').next().unwrap().parse().unwrap()
}

#[test]
fn the_live_page_moves_by_itself() {
    // The run is at work until it is stopped, however slow the browser is.
    let bench = CliFixture::with_users(10_000);
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let call = bench.quiet_import_into("users.csv", &server.endpoint()).against(&server).args(&["--in-flight", "1", "--rate", "0"]);
    let (running, address) = serving(call);
    eventually("the rows are counted", || get(&address, "/").body.contains("id=\"done\""));
    let (own, answers) = hand_on(address);
    if let Some(page) = open(&format!("http://{own}/")) {
        let answers = answers.lock().unwrap();
        assert!(answers.len() >= 3, "it asks again: {}", answers.len());
        assert!(done(&page.dom) > done(&answers[0]), "{} at first, then {}", done(&answers[0]), done(&page.dom));
        assert!(page.dom.contains("id=\"gone\" class=\"gone\" role=\"status\" hidden"), "the server answers");
    }
    running.signal(rustix::process::Signal::TERM);
    running.wait().exits(4);
}

/// A page that shows another one as a phone does, with everything opened, and has in its title what reaches beyond the screen. A table may
/// scroll in a frame of its own.
const PHONE: &str = r#"<!doctype html><iframe id="phone" style="width:400px;height:900px;border:0" src="report.html"></iframe><script>
const phone = document.getElementById("phone");
phone.onload = () => {
  const page = phone.contentDocument;
  for (const details of page.querySelectorAll("details")) details.open = true;
  const beyond = [...page.querySelectorAll("body *")].filter((it) => it.getBoundingClientRect().right > 400.5);
  const own = beyond.filter((it) => !it.closest(".scroll, .commands"));
  const scrolling = [...page.querySelectorAll(".scroll")].filter((it) => it.scrollWidth > it.clientWidth);
  const words = [...own.map((it) => it.outerHTML.slice(0, 80)), ...scrolling.map((it) => it.querySelector("table").id)];
  document.title = `measured ${page.documentElement.scrollWidth <= 400}: ${words.join(" ")}`;
};
</script>"#;

/// Opens the report on a phone: nothing reaches beyond its screen but the table of all points.
fn fits_on_a_phone(bench: &CliFixture) {
    bench.write("phone.html", PHONE);
    let Some(page) = open(&format!("file://{}", bench.path("phone.html").display())) else { return };
    let title = page.dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).map(|(title, _)| title.trim());
    assert!(["measured true:", "measured true: points"].contains(&title.unwrap_or_default()), "{title:?}");
}

#[test]
fn a_report_does_not_scroll_sideways_on_a_phone() {
    let bench = CliFixture::new();
    let long = "u".repeat(32);
    let server = Server::new(|request| if request.user_id.starts_with("uu") { code(70402) } else { imported() });
    let of_this_run = ["--report", "report.html", "--job", &"a-name-without-an-end".repeat(8)];
    bench.write("users.csv", users(60) + &format!("{long},{}\n{}\u{e9},x\n", "n".repeat(90), "long".repeat(60)));
    bench.quiet_import_into("users.csv", &server.endpoint()).against(&server).args(&of_this_run).run().exits(3);
    fits_on_a_phone(&bench);
    let sandbox = |command: &[&str]| bench.call(command).args(&["users.csv", "--sandbox"]).args(&of_this_run).run();
    sandbox(&["verify", "--profiles"]).exits(3);
    fits_on_a_phone(&bench);
    bench.write("users.csv", "UserID\n");
    sandbox(&["sync", "--state", "s.db", "--canary", &long]).exits(6);
    fits_on_a_phone(&bench);
}
