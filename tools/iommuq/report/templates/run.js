// SPDX-License-Identifier: GPL-2.0-only
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const matrix = byId("matrix");
  const single = data.steps.length === 1;
  const BAD = "xudyr";
  const PAGE = 400;
  const opened = new Set();
  let limit = PAGE;

  const make = (tag, attributes, ...inside) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    element.append(...inside.filter((one) => one !== null && one !== undefined && one !== ""));
    return element;
  };
  const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => {
    const code = char.codePointAt(0).toString(16);
    return char === "\n" ? "\\n" : code.length < 3 ? "\\x" + code.padStart(2, "0") : "\\u" + code.padStart(4, "0");
  });
  // Allow line breaks after underscores and dots.
  const softly = (element, text) => {
    visible(text).split(/(?<=[_.])(?=\w)/).forEach((part, at) => element.append(...(at ? [document.createElement("wbr")] : []), part));
    return element;
  };
  const look = (row, column) => data.looks[column][row];
  const detail = (row, column) => data.detail[row + "," + column] || {};
  const name = (row) => (data.suites[row] ? data.suites[row] + "." : "") + data.tests[row];
  const fails = (row) => data.looks.some((codes) => BAD.includes(codes[row]));
  const steady = (row) => "ops".includes(look(row, 0)) && data.looks.every((codes) => codes[row] === data.looks[0][row]);
  const number = (value) => value.toLocaleString("en");

  // The table.
  const rowOf = (row) => {
    const line = make("tr", { "data-r": row }, softly(make("th", { scope: "row" }), data.tests[row]));
    data.steps.forEach((step, column) => {
      const code = look(row, column);
      const sign = data.legend[code][0];
      const cell = make("td", { class: code }, sign ? make("button", { tabindex: -1 }, sign) : null);
      line.append(cell);
    });
    if (single) {
      const more = detail(row, 0);
      const said = more.n || (more.m || "").split("\n").find((text) => text.trim()) || more.a || "";
      line.append(make("td", { class: "told" }, make("span", {}, visible(said))));
      line.append(make("td", { class: "time" }, more.d ? more.d.toFixed(1) + " s" : ""));
    }
    return line;
  };
  const words = () => byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const mode = () => document.querySelector("input[name=mode]:checked").value;
  const render = () => {
    const wanted = words(), which = mode();
    const groups = new Map();
    let found = 0, shown = 0;
    for (let row = 0; row < data.tests.length; row++) {
      const full = name(row).toLowerCase();
      if (!wanted.every((word) => full.includes(word))) continue;
      if (which === "failing" && !fails(row)) continue;
      const suite = data.suites[row];
      if (!groups.has(suite)) groups.set(suite, { rows: [], hidden: 0 });
      const group = groups.get(suite);
      found++;
      if (which === "telling" && !wanted.length && !opened.has(suite) && steady(row)) group.hidden++;
      else group.rows.push(row);
    }
    for (const body of [...matrix.tBodies]) body.remove();
    const span = data.steps.length + (single ? 3 : 1);
    let left = limit;
    for (const [suite, group] of groups) {
      const body = make("tbody");
      if (suite) {
        const size = group.rows.length + group.hidden;
        body.append(make("tr", { class: "suite" }, make("th", { scope: "rowgroup", colspan: span },
          make("span", {}, visible(suite)), " ", make("small", {}, number(size) + (size === 1 ? " test" : " tests")))));
      }
      const rows = group.rows.slice(0, Math.max(0, left));
      left -= rows.length;
      shown += rows.length;
      for (const row of rows) body.append(rowOf(row));
      const hidden = group.hidden + group.rows.length - rows.length;
      if (hidden) {
        const cut = group.rows.length - rows.length;
        const text = number(hidden) + (rows.length ? " more " : " ") +
          (cut ? "are not shown" : single ? "pass or are skipped" : "that no patch changes");
        const button = make("button", {}, text);
        button.onclick = () => { opened.add(suite); if (cut) limit = shown + PAGE; render(); };
        body.append(make("tr", { class: "more" }, make("th", { scope: "row", colspan: span }, button)));
      }
      if (rows.length || hidden) matrix.append(body);
      if (left <= 0 && groups.size > 50 && !rows.length) break;
    }
    byId("count").textContent = wanted.length || which === "failing"
      ? number(found) + " of " + number(data.tests.length) : number(data.tests.length) + " tests";
    ready();
  };
  const cells = () => [...matrix.querySelectorAll("td button")];
  const ready = () => {
    const first = matrix.querySelector("td button");
    if (first) first.tabIndex = 0;
  };
  const place = (button) => {
    const line = button.closest("tr");
    return [Number(line.dataset.r), button.parentElement.cellIndex - 1];
  };
  const focus = (button) => {
    for (const other of matrix.querySelectorAll("td button[tabindex='0']")) other.tabIndex = -1;
    button.tabIndex = 0;
    button.focus();
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  const label = (row, column) => data.legend[look(row, column)][1] + " at " + data.steps[column].label;

  // The panel of a cell.
  const panel = byId("panel");
  let current = null, before = null;
  const logOf = (row, column) => {
    const more = detail(row, column);
    if ("g" in more) return more.g;
    const lane = data.lanes.length > 1 ? data.lanes.indexOf(data.suites[row]) : 0;
    return (data.logs[column] || [])[Math.max(lane, 0)] ?? -1;
  };
  const HOT = /^\s*(?:iommuq: \S+\| )?\s*not ok |(?:EXPECTATION|ASSERTION) FAILED|\bWARNING: |\bBUG: |\bOops|Kernel panic|: error: /;
  const showLog = (index, where) => {
    const part = [];
    const element = byId("log-" + index);
    if (!element) return [make("p", { class: "soft" }, "No log was kept.")];
    const log = JSON.parse(element.textContent);
    const size = log.lines ? number(log.lines) + " lines" : number(log.size) + " bytes";
    part.push(make("h3", {}, "Log: ", make("code", {}, visible(log.path)), log.missing ? ", " + log.missing : ", " + size));
    if (log.missing) return part;
    const box = make("div", { class: "log" });
    let next = 1;
    log.parts.forEach(([first, lines], at) => {
      if (first && first > next) box.append(make("p", {}, "… " + number(first - next) + " lines left out; see the file …"));
      if (!first && at) box.append(make("p", {}, "… the middle is left out; see the file …"));
      lines.forEach((text, offset) => {
        const line = make("div", { "data-n": first ? first + offset : "" }, make("span", {}, text));
        if (where && first && first + offset >= where[0] && first + offset <= where[1]) line.classList.add("here");
        if (HOT.test(text)) line.classList.add("hot");
        box.append(line);
      });
      next = first ? first + lines.length : 0;
    });
    if (log.lines && next && next <= log.lines) box.append(make("p", {}, "… " + number(log.lines - next + 1) + " lines left out; see the file …"));
    part.push(box);
    return part;
  };
  const show = (row, column) => {
    const more = detail(row, column), code = look(row, column);
    const step = data.steps[column];
    current = [row, column];
    byId("panel-name").textContent = visible(name(row));
    byId("panel-step").textContent = visible(step.label + (step.subject ? "  " + step.subject : ""));
    panel.querySelector("[data-do=before]").disabled = column === 0;
    panel.querySelector("[data-do=after]").disabled = column === data.steps.length - 1;
    const body = byId("panel-body");
    const [sign, word] = data.legend[code];
    const lane = data.lanes.length > 1 ? Math.max(0, data.lanes.indexOf(data.suites[row])) : 0;
    const laneName = data.lanes[lane];
    const bare = data.lanes.length > 1 ? data.tests[row] : name(row);
    body.replaceChildren(
      make("p", {}, make("span", { class: "pill sign " + code }, sign || "·"), code === "e" && more.n ? visible(more.n) : word,
        more.d ? ", " + more.d + " s" : "", "; ", (data.where[column] || [])[lane] || ""));
    if (more.n && code !== "e") body.append(make("p", { class: "soft" }, visible(more.n)));
    if (more.k) body.append(make("p", { class: "soft" }, visible(more.k[0].replace(/\s+/g, " "))));
    if (more.a) body.append(make("h3", {}, "Answer"), make("pre", { class: "said" }, more.a));
    if (more.m) body.append(make("h3", {}, "Message"), make("pre", { class: "said" + (BAD.includes(code) || code === "e" ? " bad" : "") }, more.m));
    body.append(...showLog(logOf(row, column), more.w));
    const rerun = data.rerun[laneName];
    if (rerun) {
      const text = rerun.replace("{test}", () => bare).replace("{suite}", () => bare.split(".")[0]).replace("{step}", () => step.label);
      body.append(make("h3", {}, "Run it again"), make("pre", {}, visible(text)));
    }
    const inside = panel.querySelector(".inside");
    if (!panel.open) { before = document.activeElement; panel.showModal(); }
    inside.focus();
    inside.scrollTop = 0;
    const here = [...panel.querySelectorAll(".log .here")].pop();
    const box = panel.querySelector(".log");
    if (here && box) {
      box.style.maxHeight = "60vh";
      box.style.overflowY = "auto";
      box.scrollTop = here.offsetTop - box.offsetTop - box.clientHeight * 0.75;
    }
    history.replaceState(null, "", "#cell-" + row + "-" + column);
  };
  const move = (by) => {
    if (!current) return;
    let column = current[1] + by;
    while (column >= 0 && column < data.steps.length && look(current[0], column) === "n") column += by;
    if (column >= 0 && column < data.steps.length) show(current[0], column);
  };
  panel.addEventListener("close", () => {
    current = null;
    history.replaceState(null, "", location.pathname + location.search);
    if (before && before.isConnected) before.focus();
  });
  panel.addEventListener("click", (event) => {
    const what = event.target.dataset && event.target.dataset.do;
    if (what === "close" || event.target === panel) panel.close();
    if (what === "before") move(-1);
    if (what === "after") move(1);
  });
  panel.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else return;
    event.preventDefault();
  });
  const fromHash = () => {
    const match = /^#cell-(\d+)-(\d+)$/.exec(location.hash);
    if (match && Number(match[1]) < data.tests.length && Number(match[2]) < data.steps.length) show(Number(match[1]), Number(match[2]));
  };
  addEventListener("hashchange", fromHash);

  if (matrix) {
    document.querySelector(".tools").hidden = false;
    const static_ = matrix.querySelector("tr.more") || data.tests.length > 100 ? "telling" : "all";
    document.querySelector("input[value=" + static_ + "]").checked = true;
    byId("count").textContent = number(data.tests.length) + (data.tests.length === 1 ? " test" : " tests");
    ready();
    let timer = 0;
    byId("filter").addEventListener("input", () => { clearTimeout(timer); limit = PAGE; timer = setTimeout(render, data.tests.length > 5000 ? 120 : 0); });
    for (const one of document.querySelectorAll("input[name=mode]")) one.addEventListener("change", () => { limit = PAGE; opened.clear(); render(); });
    matrix.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.suite !== undefined) { opened.add(rawSuite(button)); render(); return; }
      if (button.parentElement.tagName === "TD") { focus(button); show(...place(button)); }
    });
    matrix.addEventListener("focusin", (event) => {
      if (event.target.parentElement.tagName === "TD") {
        const [row, column] = place(event.target);
        event.target.setAttribute("aria-label", name(row) + " " + label(row, column));
      }
    });
    matrix.addEventListener("mouseover", (event) => {
      const button = event.target.closest("td button");
      if (button && !button.title) button.title = label(...place(button));
    });
    matrix.addEventListener("keydown", (event) => {
      const button = event.target.closest("td button");
      if (!button) return;
      const line = button.closest("tr"), column = button.parentElement.cellIndex;
      const lines = [...matrix.querySelectorAll("tr[data-r]")], at = lines.indexOf(line);
      const target = { ArrowLeft: [at, column - 1], ArrowRight: [at, column + 1], ArrowUp: [at - 1, column], ArrowDown: [at + 1, column], Home: [at, 1], End: [at, data.steps.length] }[event.key];
      if (!target) return;
      event.preventDefault();
      const next = lines[target[0]] && lines[target[0]].cells[target[1]];
      const there = next && next.querySelector("button");
      if (there) focus(there);
    });
  }
  // The suite, as in the data, of a line of the original page.
  const rawSuite = (button) => data.suites.find((suite) => visible(suite) === button.dataset.suite) ?? button.dataset.suite;
  const jump = (by) => {
    const bad = cells().filter((button) => BAD.includes(button.parentElement.className));
    if (!bad.length) return;
    const all = cells(), at = all.indexOf(document.activeElement);
    const after = by > 0 ? bad.find((button) => all.indexOf(button) > at) : bad.filter((button) => all.indexOf(button) < at).pop();
    focus(after || (by > 0 ? bad[0] : bad[bad.length - 1]));
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || panel.open || byId("help").open) return;
    const typing = event.target.id === "filter";
    if (event.key === "Escape" && typing) {
      if (event.target.value) { event.target.value = ""; render(); } else event.target.blur();
    } else if (typing) return;
    else if (event.key === "/" && matrix) byId("filter").focus();
    else if (event.key === "n" && matrix) jump(1);
    else if (event.key === "p" && matrix) jump(-1);
    else if (event.key === "?") byId("help").showModal();
    else return;
    event.preventDefault();
  });
  const closed = [];
  addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details:not([open])")) { closed.push(one); one.open = true; } });
  addEventListener("afterprint", () => { for (const one of closed.splice(0)) one.open = false; });
  fromHash();
})();
