//! Invalid answers, and valid ones in unusual forms.

use std::time::Duration;

use crate::support::server::{Act, Reply, Server, acts, answer, code, imported, ok_with, raw};
use crate::support::{CliFixture, side_by_side};

const USERS: usize = 6;
/// Longer than the timeout of a second.
const TOO_LONG: Duration = Duration::from_secs(3);
const GOOD: &str = r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#;

/// What is answered first.
struct Case {
    what: String,
    /// Attempts for each user.
    attempts: u32,
    first: Box<dyn Fn() -> Reply + Send + Sync>,
}

fn case(what: &str, attempts: u32, first: impl Fn() -> Reply + Send + Sync + 'static) -> Case {
    Case { what: what.to_owned(), attempts, first: Box::new(first) }
}

/// Each user's first answer is this one and the second is good. All users must be imported, each with this many attempts.
fn check(cases: impl IntoIterator<Item = Case>) {
    check_within("20", cases);
}

/// The same with another timeout, in seconds.
fn check_within(timeout: &str, cases: impl IntoIterator<Item = Case>) {
    side_by_side(cases, |case| users_are_imported(timeout, case));
}

fn users_are_imported(timeout: &str, Case { what, attempts, first }: Case) {
    let bench = CliFixture::with_users(USERS as u64);
    let server = Server::new(move |request| if request.nth_of_user == 1 { first() } else { imported() });
    let run = bench.import(&server).at_any_rate().args(&["--timeout", timeout]).run().exits(0).imports_all(USERS as u64);
    assert_eq!(run.attempts(), [attempts; USERS], "{what}: {}", run.stderr);
    assert_eq!(server.calls(), USERS * attempts as usize, "{what}");
    assert_eq!((server.users(), server.wrong()), (USERS, Vec::new()), "{what}");
}

#[test]
fn after_a_body_that_is_not_the_documented_json_the_request_is_repeated() {
    let bodies = [
        "",
        "<html><title>Please log in</title></html>",
        "null",
        "[]",
        "42",
        r#""OK""#,
        "{}",
        r#"{"ActionStatus":"OK"}"#,
        r#"{"ErrorCode":0}"#,
        r#"{"ActionStatus":"OK","ErrorCode":"","ErrorInfo":""}"#,
        r#"{"ActionStatus":"OK","ErrorCode":null,"ErrorInfo":""}"#,
        r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorCode":70169}"#,
        r#"{"ActionStatus":1,"ErrorCode":0,"ErrorInfo":""}"#,
        r#"{"ActionStatus":"OK","ErrorCode":1e400}"#,
        r#"{"ActionStatus":"OK","ErrorCode":0,"#,
        r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""} trailing"#,
    ];
    check(bodies.map(|body| case(body, 2, move || ok_with(body))));
    check([case("bytes that are no text", 2, || raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\0\x80".to_vec()))]);
}

#[test]
fn ok_with_an_error_code_and_a_failure_without_one_are_not_a_success() {
    check([
        case("OK, but 70169", 2, || ok_with(r#"{"ActionStatus":"OK","ErrorCode":70169,"ErrorInfo":""}"#)),
        case("FAIL, but 0", 2, || ok_with(r#"{"ActionStatus":"FAIL","ErrorCode":0,"ErrorInfo":""}"#)),
        case("a status of another case", 2, || ok_with(r#"{"ActionStatus":"ok","ErrorCode":0,"ErrorInfo":""}"#)),
        case("a passing fault", 2, || code(70500)),
    ]);
}

#[test]
fn another_status_than_200_is_a_temporary_error() {
    let statuses = ["201 Created", "204 No Content", "400 Bad Request", "403 Forbidden", "404 Not Found", "500 Oops", "502 Bad Gateway"];
    check(statuses.map(|status| case(status, 2, move || answer(status, "", if status.starts_with("204") { "" } else { GOOD }))));
}

#[test]
fn after_a_broken_connection_the_request_is_repeated_with_or_without_an_effect() {
    check([
        case("reset before the effect", 2, || acts([Act::Reset])),
        case("reset after the effect", 2, || acts([Act::Reset]).with_effect()),
        case("closed without a byte", 2, || acts([Act::Close])),
        case("reset in the head", 2, || raw("HTTP/1.1 200 OK\r\nContent-Le").then(Act::Reset).with_effect()),
        case("closed in the body", 2, || raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{GOOD}")).then(Act::Close)),
        case("closed in a chunk", 2, || raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{").then(Act::Close)),
    ]);
}

#[test]
fn after_bytes_that_are_not_http_the_request_is_repeated() {
    check([
        case("another protocol", 2, || raw("220 mail.example ESMTP\r\n").then(Act::Close)),
        case("a body alone", 2, || raw(GOOD).then(Act::Close)),
        case("two lengths", 2, || raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}").then(Act::Close)),
    ]);
}

#[test]
fn endless_headers_are_not_read_to_their_end() {
    let many = "X-Y: z\r\n".repeat(10_000);
    check([
        case("10,000 headers", 2, move || raw(format!("HTTP/1.1 200 OK\r\n{many}\r\n")).then(Act::Close)),
        case("a header of a megabyte", 2, || raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(1 << 20))).then(Act::Close)),
    ]);
}

#[test]
fn a_body_without_an_end_or_of_ten_megabytes_is_not_read_to_its_end() {
    check([
        case("10 MB", 2, || ok_with(&" ".repeat(10 << 20))),
        case("without an end", 2, || {
            let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
            acts([head].into_iter().chain(std::iter::repeat_n(chunk, 1_000)).map(|text| Act::Send(text.into_bytes()))).then(Act::Close)
        }),
    ]);
}

#[test]
fn an_answer_after_the_timeout_is_not_waited_for() {
    check_within(
        "1",
        [
            case("silence", 2, || imported().after(TOO_LONG).then(Act::Close)),
            case("a byte a second", 2, || imported().dripping(Duration::from_millis(900)).then(Act::Close)),
            case("a body that stops", 2, || {
                raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{").then(Act::Pause(TOO_LONG)).then(Act::Close)
            }),
        ],
    );
}

#[test]
fn a_good_answer_may_have_any_http_form() {
    check([
        case("byte by byte", 1, || imported().dripping(Duration::from_millis(1))),
        case("HTTP/1.0", 1, || {
            raw(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len())).with_effect().then(Act::Close)
        }),
        case("HTTP/1.0 without a length", 1, || raw(format!("HTTP/1.0 200 OK\r\n\r\n{GOOD}")).with_effect().then(Act::Close)),
        case("chunks", 1, || {
            raw(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len())).with_effect()
        }),
        case("an interim answer before", 1, || raw("HTTP/1.1 100 Continue\r\n\r\n").then(good()).with_effect()),
        case("another type", 1, || answer("200 OK", "Content-Type: text/html\r\nSet-Cookie: a=b\r\n", GOOD).with_effect()),
        case("more fields", 1, || {
            ok_with(r#"{"ErrorInfo":"","More":{"a":[1]},"RequestId":"r-1","ErrorCode":0,"ActionStatus":"OK"}"#).with_effect()
        }),
        case("no ErrorInfo", 1, || ok_with(r#"{"ActionStatus":"OK","ErrorCode":0}"#).with_effect()),
        case("a charset", 1, || answer("200 OK", "content-type: application/json; charset=GBK\r\n", GOOD).with_effect()),
    ]);
}

/// An answer needs only its status and its code. Nothing else in it is an error, and none of these answers suggests an outage.
#[test]
fn only_status_and_code_of_an_answer_matter() {
    let bodies: &[&[u8]] = &[
        br#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":null}"#,
        br#"{"ActionStatus":"OK","ErrorCode":"0","ErrorInfo":""}"#,
        br#"{"ActionStatus":"OK","ErrorCode":0.0,"ErrorInfo":{"a":[null]}}"#,
        br#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":[]}"#,
        b"\xef\xbb\xbf{\"ActionStatus\":\"OK\",\"ErrorCode\":0,\"ErrorInfo\":\"\"}\n",
        b"{\"ActionStatus\":\"OK\",\"ErrorCode\":0,\"ErrorInfo\":\"\xb3\xc9\xb9\xa6\xd5\x5c\"}",
        br#"{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":7,"ResultItem":true,"RequestId":[1],"x":1e999,"x":"\ud800"}"#,
        b"\r\n {\t\"RequestId\" : null ,\n \"ErrorCode\" : 0 , \"ActionStatus\" : \"OK\" } ",
    ];
    check(bodies.iter().map(|body| {
        let reply = || raw([format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat());
        case(&body.escape_ascii().to_string(), 1, move || reply().with_effect())
    }));
    let bench = CliFixture::with_users(USERS as u64);
    let server = Server::new(|_| ok_with(r#"{"ActionStatus":"FAIL","ErrorCode":"70402","ErrorInfo":{"why":"odd"}}"#));
    let run = bench.import(&server).at_any_rate().run().exits(3);
    assert!(
        run.rows.iter().all(|row| (&*row.error_code, &*row.error_info, row.attempts) == ("70402", r#"{"why":"odd"}"#, 1)),
        "{:?}",
        run.rows
    );
}

#[test]
fn an_answer_that_cannot_be_read_is_shown() {
    let bench = CliFixture::with_users(1);
    let page = format!("<html>\x1b[31m{}", "login ".repeat(40));
    let server = Server::new(move |_| ok_with(&page));
    let run = bench.import(&server).at_any_rate().args(&["--max-outage", "1s"]).run().exits(4);
    run.because(r#"an answer that is not the documented JSON: "<html>\x1b[31mlogin login "#);
}

/// A gateway that repeats the request's URL in its answer repeats the signature, too.
#[test]
fn a_signature_that_an_answer_repeats_is_not_shown() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|request| ok_with(&format!("usersig={}&no such page", request.usersig)));
    let run = bench.import(&server).at_any_rate().args(&["--max-outage", "1s"]).run().exits(4);
    run.because("usersig=").because("no such page");
    let bench = CliFixture::with_users(2);
    let server = Server::new(|request| {
        let info = request.usersig.replace('*', "%2A");
        ok_with(&format!(r#"{{"ActionStatus":"FAIL","ErrorCode":70402,"ErrorInfo":"no {} {info} here"}}"#, request.usersig))
    });
    let run = bench.import(&server).at_any_rate().run().exits(3);
    assert!(run.rows.iter().all(|row| row.error_info == "no *** *** here"), "{:?}", run.rows);
}

fn good() -> Act {
    Act::Send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len()).into_bytes())
}
