use reqwest::Method;

use super::*;

const CM: &str = "https://cm.example.com";

fn jar() -> CookieJar {
    CookieJar::of(&CM.parse().unwrap(), Arc::default())
}

fn answer(jar: &CookieJar, status: u16, lines: &[&str], sent: &SentCookies) {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(SET_COOKIE, line.parse().unwrap());
    }
    jar.take_from(status, &headers, sent);
}

/// What goes to a path, and which cookies that are.
fn request(jar: &CookieJar, path: &str) -> (String, SentCookies) {
    let mut request = Request::new(Method::GET, format!("{CM}{path}").parse().unwrap());
    let sent = jar.put_into(&mut request);
    let header = request.headers().get(COOKIE);
    assert!(header.is_none_or(HeaderValue::is_sensitive));
    (header.map_or_else(String::new, |header| header.to_str().unwrap().to_owned()), sent)
}

/// What goes to a path of a server that has set these.
fn after(lines: &[&str], path: &str) -> String {
    let jar = jar();
    answer(&jar, 200, lines, &SentCookies::default());
    request(&jar, path).0
}

#[test]
fn what_is_set_comes_back() {
    assert_eq!(after(&[], "/"), "");
    assert_eq!(
        after(&["ASP.NET_SessionId=abc; path=/; HttpOnly; SameSite=Lax"], "/x"),
        "ASP.NET_SessionId=abc"
    );
    assert_eq!(after(&["a=1", "b=2; Secure", "a=3"], "/"), "b=2; a=3");
    assert_eq!(after(&["a=\"x=y\"; Domain=.example.com"], "/"), "a=\"x=y\"");
    assert_eq!(after(&["=x", "nothing", "a=\u{fc}"], "/"), "");
}

#[test]
fn a_cookie_goes_to_its_path_and_what_is_below_it() {
    let lines = ["a=1; Path=/CertificateManagement", "b=2; path=/", "c=3; path=x"];
    assert_eq!(after(&lines, "/CertificateManagement/api"), "a=1; b=2; c=3");
    assert_eq!(after(&lines, "/CertificateManagement"), "a=1; b=2; c=3");
    assert_eq!(after(&lines, "/CertificateManagementX"), "b=2; c=3");
}

#[test]
fn a_cookie_for_another_domain_is_not_kept() {
    for domain in ["other.example.com", "evil.com", "m.example.com", "x.cm.example.com"] {
        assert_eq!(after(&[&format!("a=1; Domain={domain}")], "/"), "", "{domain}");
    }
}

#[test]
fn a_secure_cookie_is_not_kept_without_tls() {
    let jar = CookieJar::of(&"http://localhost".parse().unwrap(), Arc::default());
    answer(&jar, 200, &["a=1; Secure", "b=2"], &SentCookies::default());
    assert_eq!(request(&jar, "/").0, "b=2");
}

#[test]
fn a_cookie_that_has_ended_is_gone() {
    for end in [
        "Max-Age=0",
        "max-age=-1",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "expires=Tue, 12-Oct-1999 00:00:00 GMT",
    ] {
        assert_eq!(after(&["a=1", &format!("a=; {end}")], "/"), "", "{end}");
    }
    for end in ["Max-Age=60", "Max-Age=99999999999999999999", "Expires=soon", "Max-Age=x"] {
        assert_eq!(after(&[&format!("a=1; {end}")], "/"), "a=1", "{end}");
    }
    assert_eq!(after(&["a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/"), "a=1");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_ends_when_it_says() {
    let jar = jar();
    answer(&jar, 200, &["a=1; Max-Age=60"], &SentCookies::default());
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(request(&jar, "/").0, "a=1");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(request(&jar, "/").0, "");
}

#[test]
fn what_went_with_a_call_that_was_not_let_in_is_dropped_and_what_came_back_is_kept() {
    for status in [401, 302] {
        let jar = jar();
        answer(&jar, 200, &["session=stale"], &SentCookies::default());
        let (_, first) = request(&jar, "/");
        let (_, second) = request(&jar, "/");
        answer(&jar, status, &["session=fresh"], &first);
        assert_eq!(request(&jar, "/").0, "session=fresh", "{status}");
        // The other call was on its way meanwhile: it says nothing about the fresh one.
        answer(&jar, status, &[], &second);
        assert_eq!(request(&jar, "/").0, "session=fresh", "{status}");
        let (_, third) = request(&jar, "/");
        answer(&jar, 500, &[], &third);
        assert_eq!(request(&jar, "/").0, "session=fresh", "{status}");
    }
}

#[test]
fn a_server_cannot_fill_the_memory() {
    let jar = jar();
    for number in 0..200 {
        answer(
            &jar,
            200,
            &[&format!("c{number}=1; path=/{}", "p".repeat(number))],
            &SentCookies::default(),
        );
    }
    assert_eq!(jar.state.lock().unwrap().cookies.len(), MAX_COOKIES);
    assert!(request(&jar, &format!("/{}", "p".repeat(199))).0.len() <= MAX_FIELD_BYTES);
    answer(&jar, 200, &[&format!("big={}", "x".repeat(MAX_COOKIE_BYTES))], &SentCookies::default());
    assert!(!request(&jar, "/").0.contains("big"));
}

#[test]
fn what_is_sent_is_bounded_and_the_session_of_the_last_login_stays() {
    for size in [1, 40, 400, 1300, 3900] {
        let jar = jar();
        answer(&jar, 200, &["session=of-the-login; path=/"], &SentCookies::default());
        for number in 0..200 {
            let (header, sent) = request(&jar, "/");
            assert!(header.len() <= MAX_FIELD_BYTES, "{} bytes", header.len());
            assert!(header.starts_with("session=of-the-login"), "{header}");
            answer(&jar, 200, &[&format!("c{number}={}", "x".repeat(size))], &sent);
        }
        let newest = format!("c199={}", "x".repeat(size));
        assert!(request(&jar, "/").0.ends_with(&newest));
    }
}

#[test]
fn a_login_that_sets_too_much_keeps_its_last_and_a_new_login_counts_more_than_the_old_one() {
    let jar = jar();
    let big: Vec<_> = (0..50).map(|n| format!("c{n}={}", "x".repeat(1000))).collect();
    let lines: Vec<_> = big.iter().map(String::as_str).collect();
    answer(&jar, 200, &lines, &SentCookies::default());
    let (header, sent) = request(&jar, "/");
    assert!(header.len() <= MAX_FIELD_BYTES && header.contains("c49="), "{header}");
    answer(&jar, 401, &["session=new"], &sent);
    let (header, sent) = request(&jar, "/");
    assert_eq!(header, "session=new");
    for n in 0..9 {
        answer(&jar, 200, &[&format!("d{n}={}", "x".repeat(1000))], &sent);
    }
    assert!(request(&jar, "/").0.starts_with("session=new"));
    jar.clear();
    assert_eq!(request(&jar, "/").0, "");
}
