"use strict";
// The page's only script: themes, figures, items. Every text from the study is set as text, never as markup.
(async () => {
  const page = `evomerge ${location.pathname}`;
  const byId = (id) => document.getElementById(id);

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== null && value !== false) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function kept(store, name) {
    try { return JSON.parse(store.getItem(name)); } catch { return null; }
  }

  function keep(store, name, value) {
    try { store.setItem(name, JSON.stringify(value)); } catch { /* a browser that keeps nothing of files */ }
  }

  function storage(name) {
    try { return window[name]; } catch { return null; }
  }

  const local = storage("localStorage"), session = storage("sessionStorage");

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // Themes

  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const redraws = [];
  const themeButton = element("button", { type: "button", click: switchTheme }, "Dark theme");

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  function showTheme() {
    themeButton.setAttribute("aria-pressed", String(isDark()));
    for (const redraw of redraws) redraw();
  }

  function switchTheme() {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep(local, "evomerge theme", root.dataset.theme);
    showTheme();
  }

  const chosenTheme = kept(local, "evomerge theme");
  if (chosenTheme === "dark" || chosenTheme === "light") root.dataset.theme = chosenTheme;
  system.addEventListener("change", showTheme);
  byId("controls").append(themeButton);
  showTheme();

  // A study that runs: the page loads itself again, unless the reader is typing or has stopped it

  const seconds = Number(document.body.dataset.refresh);
  const state = kept(session, page) ?? {};
  let reloads = () => {};
  if (seconds) {
    const box = element("input", { type: "checkbox", id: "refresh" });
    box.checked = state.refresh !== false;
    byId("controls").prepend(
      element("span", {}, box, element("label", { for: "refresh" }, ` Reload every ${seconds} s`)),
    );
    box.addEventListener("change", () => { state.refresh = box.checked; keep(session, page, state); });
    reloads = () => setInterval(() => {
      const typing = document.activeElement?.matches("input[type=search], select");
      if (!box.checked || typing || document.visibilityState !== "visible") return;
      keep(session, page, { ...state, scroll: scrollY });
      location.reload();
    }, seconds * 1000);
  }

  // Figures

  const MARKUP = /<(?!\/?(?:b|br|i|sub|sup|extra)>)/gi;

  function colour(name) {
    const probe = byId("trouble");
    probe.style.color = name;
    const found = getComputedStyle(probe).color;
    probe.style.color = "";
    return found;
  }

  // Return a figure whose texts hold no markup but plotly's own, and whose colours are the theme's.
  function ready(value) {
    if (typeof value === "string") {
      return /^var\(--[\w-]+\)$/.test(value) ? colour(value) : value.replace(MARKUP, "&lt;");
    }
    if (Array.isArray(value)) return value.map(ready);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, ready(each)]));
  }

  // Break a text into lines of some letters, so that a narrow screen does not cut it.
  function wrapped(text, letters) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const line = lines.at(-1);
      if (line && line.length + word.length >= letters) lines.push(word);
      else lines[lines.length - 1] = line ? `${line} ${word}` : word;
    }
    return lines.join("<br>");
  }

  function layoutOf(figure, width) {
    const { updatemenus, width: _, ...layout } = figure.layout ?? {};
    const text = colour("var(--text)"), line = colour("var(--line)"), card = colour("var(--card)");
    const title = { font: { size: 13 } };
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, title };
    const none = "rgba(0,0,0,0)";
    const own = {
      font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 13 },
      paper_bgcolor: none, plot_bgcolor: none, xaxis: axis, yaxis: axis,
      margin: { l: 50, r: 20, t: 30, b: 50 },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { color: text } },
      legend: { bgcolor: none },
    };
    const template = { ...layout.template, layout: { ...own, ...layout.template?.layout } };
    const font = { ...layout.font, color: text, family: own.font.family, size: 13 };
    const found = { ...layout, font, template, autosize: true };
    for (const [name, axis] of Object.entries(found)) {
      if (!/^xaxis/.test(name) || !axis.title?.text) continue;
      found[name] = { ...axis, title: { ...axis.title, text: wrapped(axis.title.text, width / 9) } };
    }
    return found;
  }

  function drawPlot(place, source) {
    const settings = { responsive: true, displayModeBar: false, doubleClick: "reset" };
    let pressed = [];
    const draw = () => {
      const figure = ready(source);
      Plotly.react(place, figure.data, layoutOf(figure, place.clientWidth), settings);
      for (const press of pressed) press();
    };
    const caption = place.parentElement.querySelector("h3");
    caption.id = `${place.parentElement.id}-title`;
    place.setAttribute("role", "img");
    place.setAttribute("aria-labelledby", caption.id);
    const menus = element("div", { class: "choices" });
    for (const menu of ready(source).layout?.updatemenus ?? []) {
      const group = element("div", { class: "choices", role: "group", "aria-labelledby": caption.id });
      menu.buttons.forEach((choice, at) => {
        const press = () => Plotly[choice.method](place, ...structuredClone(choice.args));
        const button = element("button", { type: "button", "aria-pressed": at === (menu.active ?? 0) });
        button.textContent = choice.label;
        button.addEventListener("click", () => {
          for (const each of group.children) each.setAttribute("aria-pressed", each === button);
          pressed = [...pressed.filter((each) => each.group !== group), Object.assign(press, { group })];
          press();
        });
        group.append(button);
      });
      menus.append(group);
    }
    place.before(menus);
    const save = () => Plotly.downloadImage(place, { format: "svg", filename: place.dataset.plot });
    place.after(
      element("div", { class: "tools" }, numbersOf(source, caption),
        element("button", { type: "button", click: save, "aria-describedby": caption.id }, "Save as SVG")),
    );
    draw();
    redraws.push(draw);
  }

  // The figure's numbers as a table, made when it is opened.
  function numbersOf(figure, caption) {
    const MOST = 500;
    const fold = element("details", {}, element("summary", {}, "The numbers"));
    const said = (axis, name) => figure.layout?.[axis]?.title?.text ?? name;
    const label = (axis, value) => {  // of the nearest tick that has a text of its own
      const { tickvals = [], ticktext = [] } = figure.layout?.[axis] ?? {};
      const far = tickvals.map((tick) => Math.abs(tick - value));
      return ticktext[far.indexOf(Math.min(...far))] ?? value;
    };
    fold.addEventListener("toggle", () => {
      if (fold.children.length > 1) return;
      const rows = [];
      for (const trace of figure.data) {
        const name = trace.name ?? "", { x = [], z } = trace, y = trace.y ?? trace.median ?? [];
        if (z) z.forEach((row, i) => row.forEach((value, j) => rows.push([name, x[j] ?? j, y[i] ?? i, value])));
        else for (let i = 0; i < Math.max(x.length, y.length); i++) {
          rows.push([name, label("xaxis", x[i] ?? i), label("yaxis", y[i] ?? "")]);
        }
      }
      const heads = ["series", said("xaxis", "x"), said("yaxis", "y"), "value"];
      const cells = (row, tag) => row.map((each) => element(tag, tag === "th" ? { scope: "col" } : {}, shown(each)));
      const width = Math.max(0, ...rows.map((row) => row.length));
      fold.append(
        element("div", { class: "scroll", role: "region", tabindex: 0, "aria-labelledby": caption.id },
          element("table", { class: "words" },
            element("thead", {}, element("tr", {}, ...cells(heads.slice(0, width), "th"))),
            element("tbody", {}, ...rows.slice(0, MOST).map((row) => element("tr", {}, ...cells(row, "td")))))),
      );
      if (rows.length > MOST) fold.append(element("p", { class: "note" }, `The first ${MOST} of ${rows.length}.`));
    });
    return fold;
  }

  function shown(value) {
    if (typeof value === "number") return String(Math.abs(value) < 1e6 ? Number(value.toPrecision(5)) : value);
    return value === null ? "" : String(value).replace(/<[^>]*>/g, " ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }

  // Items

  const PAGE = 10, LONG = 600, SAME = 1e-9;
  const STANDINGS = ["gained", "lost", "both right", "both wrong", "same score"];

  function standing(task, item, row, against) {
    const mine = task.scores[row]?.[item] ?? null, theirs = task.scores[against]?.[item] ?? null;
    if (mine === null || theirs === null) return "";
    const better = task.higher ? mine - theirs : theirs - mine;
    if (Math.abs(better) > SAME) return better > 0 ? "gained" : "lost";
    if (!task.binary) return "same score";
    return (mine === 1) === task.higher ? "both right" : "both wrong";
  }

  function field(name, control) {
    control.id = `items-${name.replace(/\W/g, "-")}`;
    return element("div", { class: "field" }, element("label", { for: control.id }, name), control);
  }

  function select(options, value) {
    const made = element("select", {});
    for (const [key, text] of options) made.append(new Option(text, key));
    if (options.some(([key]) => String(key) === String(value))) made.value = value;
    return made;
  }

  function explore(place, data) {
    const { rows, tasks, row } = data;
    const chosen = { task: "", against: data.against, standing: "", text: "", page: 0, ...state.items };
    const others = rows.map((each, at) => [at, each.name]).filter(([at]) => at !== row);
    const taskBox = select([["", "all tasks"], ...tasks.map((each, at) => [at, each.name])], chosen.task);
    const againstBox = select(others, chosen.against);
    const standingBox = select([["", "all items"], ...STANDINGS.map((each) => [each, each])], chosen.standing);
    const textBox = element("input", { type: "search", autocomplete: "off" });
    textBox.value = chosen.text;
    const count = element("p", { role: "status" }), list = element("div", {}), pager = element("div", { class: "choices" });
    const place_of = element("span", { role: "status" });
    const before = element("button", { type: "button", click: () => turn(-1) }, "Previous");
    const after = element("button", { type: "button", click: () => turn(1) }, "Next");
    pager.append(before, after, place_of);
    let found = [], at = chosen.page;

    const texts = tasks.map((task) => task.ids.map((id, item) =>
      [id, task.prompts[item], task.golds[item], ...task.answers.map((each) => each?.[item] ?? "")]
        .join("\n").toLowerCase()));

    function filter() {
      const wanted = textBox.value.toLowerCase(), counts = {};
      found = [];
      tasks.forEach((task, which) => {
        if (taskBox.value !== "" && Number(taskBox.value) !== which) return;
        task.ids.forEach((_, item) => {
          if (wanted && !texts[which][item].includes(wanted)) return;
          const stands = standing(task, item, row, Number(againstBox.value));
          counts[stands] = (counts[stands] ?? 0) + 1;
          if (!standingBox.value || standingBox.value === stands) found.push([task, item, stands]);
        });
      });
      const parts = STANDINGS.filter((each) => counts[each]).map((each) => `${counts[each]} ${each}`);
      const opponent = rows[Number(againstBox.value)]?.name;
      count.textContent = `${found.length} ${found.length === 1 ? "item" : "items"}.`
        + (opponent && parts.length ? ` ${rows[row].name} against ${opponent}: ${parts.join(", ")}.` : "");
    }

    function show() {
      const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
      at = Math.min(at, last);
      before.disabled = at === 0;
      after.disabled = at === last;
      place_of.textContent = `page ${at + 1} of ${last + 1}`;
      list.replaceChildren(...found.slice(at * PAGE, (at + 1) * PAGE).map(article));
      for (const prompt of list.querySelectorAll("pre.prompt")) prompt.scrollTop = prompt.scrollHeight;
      state.items = { task: taskBox.value, against: againstBox.value, standing: standingBox.value, text: textBox.value, page: at };
      keep(session, page, state);
    }

    function turn(step) {
      at += step;
      show();
      list.querySelector("h3")?.scrollIntoView({ block: "nearest" });
    }

    function article([task, item, stands]) {
      const id = task.ids[item], gold = task.golds[item];
      const first = [row, Number(againstBox.value)];
      const order = [...new Set([...first, ...rows.keys()])].filter((each) => rows[each]);
      const badge = stands && element("span", { class: `badge ${{ gained: "gained", lost: "lost" }[stands] ?? "same"}` }, stands);
      return element("article", { class: "item" },
        element("h3", {}, element("span", {}, task.name), ...(badge ? [badge] : []), element("span", { class: "id" }, id)),
        element("div", { class: "exchange" },
          element("div", {},
            element("p", { class: "label" }, "Prompt"),
            element("pre", { class: "prompt", role: "region", tabindex: 0, "aria-label": `Prompt of ${task.name} ${id}` }, task.prompts[item] || "(not kept)"),
            element("p", { class: "label" }, "Right answer"),
            element("pre", { class: "gold", role: "region", tabindex: 0, "aria-label": `Right answer of ${task.name} ${id}` }, gold || "(none)")),
          element("table", { class: "answers" },
            element("caption", { class: "hidden" }, "What models wrote"),
            element("thead", {}, element("tr", {},
              ...["model", "wrote", task.metric.replaceAll("_", "_\u200b")].map((head) => element("th", { scope: "col" }, head)))),
            element("tbody", {}, ...order.map((each) => answer(task, item, each, first.includes(each)))))));
    }

    function answer(task, item, which, isChosen) {
      const text = task.answers[which]?.[item], score = task.scores[which]?.[item] ?? null;
      const mark = score === null || !task.binary ? "" : (score === 1) === task.higher ? " ✓" : " ✗";
      return element("tr", isChosen ? { class: "chosen" } : {},
        element("th", { scope: "row" }, rows[which].name),
        wrote(text),
        element("td", { class: "score" }, score === null ? "–" : shown(score) + mark));
    }

    function wrote(text) {
      if (!text) return element("td", {}, element("em", {}, text === "" ? "nothing" : "not kept"));
      if (text.length <= LONG) return element("td", {}, text);
      const cell = element("td", {}, `${text.slice(0, LONG)}… `);
      cell.append(element("button", { type: "button", click: () => { cell.textContent = text; } }, "Show all"));
      return cell;
    }

    let waiting = 0;
    const refilter = () => { at = 0; filter(); show(); };
    for (const box of [taskBox, againstBox, standingBox]) box.addEventListener("change", refilter);
    textBox.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refilter, 150); });
    place.append(
      element("div", { class: "choices", role: "search", "aria-label": "Items" },
        field("Task", taskBox), field("Against", againstBox), field("Show", standingBox), field("Text", textBox)),
      count, list, pager);
    filter();
    show();
  }

  // All

  async function addPlotly() {
    const script = document.createElement("script");
    script.textContent = await unpacked("plotly");
    document.head.append(script);
  }

  try {
    const data = byId("data") ? JSON.parse(await unpacked("data")) : {};
    if (data.items) explore(byId("item-list"), data.items);
    const places = [...document.querySelectorAll("[data-plot]")];
    if (places.length) await addPlotly();
    for (const place of places) drawPlot(place, data.plots[place.dataset.plot]);
    if (state.scroll) scrollTo(0, state.scroll);
    delete state.scroll;
    keep(session, page, state);
    root.dataset.ready = "yes";
  } catch (error) {
    byId("trouble").textContent =
      `The figures and items could not be shown (${error.message}). Open the page in a browser of 2024 or later.`;
    throw error;
  } finally {
    reloads();
  }
})();
