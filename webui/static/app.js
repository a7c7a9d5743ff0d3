// @ts-check
/**
 * The page's beginning: makes the parts, connects them, and opens the session that the address names. Each
 * part knows only the store, the room and the few functions that it is given here.
 * @import { Message } from "./types.js"
 */

import { announce } from "./base/announce.js";
import { nameInAddress, sessionInAddress } from "./base/address.js";
import { byId } from "./base/dom.js";
import { t } from "./base/language.js";
import { recall, remember } from "./base/storage.js";
import { get, listen } from "./server/api.js";
import { followChanges } from "./session/changes.js";
import { leaveEdit, openEdit } from "./session/edit-drafts.js";
import { createRoom } from "./session/room.js";
import { Store } from "./session/store.js";
import { versions } from "./session/tree.js";
import { hideAway, showAway } from "./overlays/away.js";
import { closeTop } from "./overlays/back.js";
import { toast, toastError } from "./overlays/toast.js";
import { copyText } from "./text/code.js";
import { createChips } from "./chat/chips.js";
import { createComposer } from "./writing/composer.js";
import { createStatusLine } from "./chat/status-line.js";
import { createTranscript } from "./chat/transcript.js";
import { createWelcome } from "./chat/welcome.js";
import { createLibrary } from "./library/library.js";
import { createSessionList } from "./library/session-list.js";
import { appMenuButton } from "./app-menu.js";
import { createFrame } from "./frame.js";
import { listenToKeys } from "./keys.js";
import { createLoadedModel } from "./models/loaded-model.js";
import { createTitle } from "./title.js";

const store = new Store();
const room = createRoom(store, {
  error: toastError,
  conflict: () =>
    toast(t("This session was changed in another tab and has been loaded again. What you typed is still there.")),
  connection: (connected) => connected || changes.suspect(),
  flush: (replies) => {
    statusLine.flush();
    transcript.flush(replies);
  },
  announce,
  note: toast,
});
const frame = createFrame();
const library = createLibrary(store, room, { open, openNew, editBot: openBotEditor, reloadBots });
const title = createTitle(store, library.rename);
const transcript = createTranscript(store, room, {
  show: (id) => room.show(id),
  edit: (id) => leaveOrEnterEdit(id),
  save: (message, text) => finishEdit(room.correct(message, text)),
  branch: (message, text) => finishEdit(room.sayInstead(message, text)),
  proceed: (message) => room.reply("continue", { message: message.id }),
  answerNow: room.answerNow,
  again: (message) => room.reply("regenerate", { message: message.id }),
  tokens,
  menu: async (message, anchor) =>
    (await import("./message-menu.js")).openMessageMenu(store, room, message, anchor, { tokens, inspect, summarize }),
  summary: summarize,
  knows: (bot) => chips.knows(bot),
});
const timeline = async () => (await import("./branches/timeline.js")).openTimeline(store, room, transcript);
const openKeyList = async () => (await import("./overlays/key-list.js")).openKeyList();
const statusLine = createStatusLine(store, room, {
  create,
  openSession,
  inspect: () => inspect({}),
  summarize: () => summarize(),
  enlarge: (tokens) => model.enlarge(tokens),
});
const composer = createComposer(store, room, { editLast, sent: transcript.toEnd, speak });
const sessions = createSessionList(store, { ...library, room, reloadBots, open: openListed, openNew, create });
const chips = createChips(store, room, {
  speak,
  editBot: openBotEditor,
  openBots: () => openTab("bot"),
  inspect,
});
createWelcome(store, room, { editBot: openBotEditor, fill: composer.fill });
const model = createLoadedModel(store, room, {
  took: (slot) => changes.took(slot),
  closeDrawer: () => frame.closeDrawer(),
  reloadSettings,
});

/** @type {Promise<{choose: (id: string) => void}> | null} */
let panel = null;

/** The settings, loaded once the chat is on the page. */
function rightPanel() {
  panel ||= import("./panels/right-panel.js").then(({ createRightPanel }) =>
    createRightPanel(store, room, chips, {
      closeButton: frame.closeButton("right"),
      reloadSettings,
      library,
      speak,
      editBot: openBotEditor,
      timeline,
      openModels: model.openMenu,
    }),
  );
  return panel;
}

function openSession() {
  openTab("session");
}

/** @param {string} tab of the settings */
async function openTab(tab) {
  (await rightPanel()).choose(tab);
  frame.setOpen("right", true);
}

const changes = followChanges(store, {
  changed: takeChanges,
  waits: () => title.waits(),
  slot: model.changed,
  gone: (inMs) => showAway(inMs, changes.now),
  async back() {
    hideAway();
    await Promise.all([library.reload(), reloadBots(), reloadSettings()]);
    if (store.state.session) await room.refresh();
    else await start();
  },
});

listen({
  reached: (reached) => reached || changes.suspect(),
  login: async () => (await import("./overlays/login.js")).askForPassword(() => location.reload()),
});
listenToKeys({
  escape,
  create,
  proceed,
  copyLast,
  retrace: async (way) => (await import("./chat/retrace.js")).retrace(store, room, way),
  version,
  list: openKeyList,
  timeline,
  find,
  toBeginning: transcript.toBeginning,
  toEnd: transcript.toEnd,
  search() {
    frame.setOpen("left", true, false);
    sessions.focusSearch();
  },
  left: () => frame.toggle("left"),
  right: () => frame.toggle("right"),
});

/** @param {string} id @param {Promise<any>} [reading] the session, if it was asked for already */
async function open(id, reading) {
  frame.closeDrawer(false);
  nameInAddress(id, true);
  try {
    if (!(await room.open(id, reading))) return;
  } catch (error) {
    toastError(error);
    if (store.state.session) nameInAddress(store.state.session.id || "", false);
    else await openNew();
    return;
  }
  remember("last", id);
  const editing = openEdit(id, room.path());
  if (editing) store.set({ editing });
  else composer.rest();
}

/** A session of the list: of a search's, at the words. @param {string} id */
async function openListed(id) {
  const query = store.state.words.join(" ");
  const found = store.state.sessions.find((one) => one.id === id);
  await open(id);
  if (query && store.state.session?.id === id) await find(query, found?.match || "");
}

/**
 * The empty page, with the bots that were in the room last.
 * @param {boolean} [entry] whether Back leaves it again
 */
async function openNew(entry = false) {
  nameInAddress("", entry);
  const known = new Set(store.state.bots.map((bot) => bot.id));
  const before = (store.state.session?.bots || []).filter(({ id }) => known.has(id));
  const first = store.state.bots[0];
  await room.openNew(before.length ? before.map(({ id }) => ({ id, muted: false })) : first ? [{ id: first.id, muted: false }] : []);
  remember("last", "");
}

async function create() {
  frame.closeDrawer(false);
  await openNew(true);
  composer.rest();
}

/** @param {string} bot */
async function speak(bot) {
  frame.closeDrawer(false);
  transcript.toEnd();
  await room.reply("next", { bot });
}

async function reloadBots() {
  const body = await get("/api/bots").catch(toastError);
  if (body) store.set({ bots: body.bots });
}

/** @param {any} bot */
async function openBotEditor(bot) {
  const { editBot } = await import("./bots/bot-editor.js");
  const existing = store.state.bots.find((one) => one.id === bot?.id) || null;
  editBot(store, existing, reloadBots, (saved) => {
    if (!existing && !(store.state.session?.bots || []).some((entry) => entry.id === saved.id))
      chips.add(saved.id);
  });
}

/** @param {Message} message @param {string} name */
async function tokens(message, name) {
  const { openLens } = await import("./tokens/lens.js");
  openLens(store, room, message, name);
}

/** @param {{bot?: string, message?: Message}} which */
async function inspect(which) {
  const { openInspector } = await import("./tokens/inspector.js");
  const edits = { editBot: openBotEditor, editMessage: leaveOrEnterEdit, openSession, summarize };
  openInspector(store, room, which, { ...edits, create, enlarge: model.enlarge });
}

/** @param {string} [until] the last message of it; else the older half @param {string[]} [readers] */
async function summarize(until, readers) {
  const { olderHalf, openSummary } = await import("./memory/summary.js");
  openSummary(store, room, until || olderHalf(store, room), readers);
}

/** @param {string | null} id */
function leaveOrEnterEdit(id) {
  const { editing: before, session } = store.state;
  if (before && session) leaveEdit(session.id, before);
  store.set({ editing: id });
  if (!id && before) transcript.focus(before);
}

/** @param {Promise<boolean>} saving */
async function finishEdit(saving) {
  if (!(await saving)) return false;
  store.set({ editing: null });
  composer.rest();
  return true;
}

function editLast() {
  const last = room.path().findLast((message) => message.author === "user");
  if (last && !store.state.live.size) store.set({ editing: last.id });
}

function escape() {
  if (frame.closeDrawer()) return;
  if (document.activeElement?.closest("#left, #right")) composer.rest(); // it left what was done there
  else if (store.state.editing) leaveOrEnterEdit(null);
  else if (store.state.live.size) room.stop();
}

const lastReply = () => room.path().findLast((message) => message.author !== "user" && !store.state.live.has(message.id));

function proceed() {
  const last = lastReply();
  if (last && !store.state.live.size) room.reply("continue", { message: last.id });
}

function copyLast() {
  const last = lastReply();
  if (last && !last.far) copyText(last.text, document.createElement("span"));
}

/** Another version of the focused message, or of the last one that has several. @param {number} by */
function version(by) {
  const { session, live } = store.state;
  if (!session) return;
  const path = room.path();
  const focused = document.activeElement?.closest?.(".message")?.getAttribute("data-id");
  const several = (message) => versions(session, live, message).length > 1;
  const message = path.find((one) => one.id === focused && several(one)) || path.findLast(several);
  if (!message) return;
  const all = versions(session, live, message);
  const other = all[all.indexOf(message.id) + by];
  if (other) room.show(other);
}

async function reloadSettings() {
  const body = await get("/api/settings").catch(toastError);
  if (body) store.set({ settings: body });
}

/** What other tabs did. @param {any} news */
async function takeChanges(news) {
  if (news.bots || news.full) reloadBots();
  library.went(news.deleted);
  if (news.sessions.length || news.deleted.length || news.full) library.reload();
  const id = store.state.session?.id;
  if (id && news.deleted.includes(id)) {
    toast(t("This session was deleted in another tab."));
    await openNew();
  } else if (id && (news.full || news.sessions.some((one) => one.id === id && isNews(one)))) {
    if (!news.full) title.mark();
    await room.refresh();
  }
}

/** @param {any} summary */
function isNews(summary) {
  const { session, live } = store.state;
  const known = [...live.values()].some((one) => one.replyId === summary.writing?.reply_id);
  return summary.revision !== session?.revision || (summary.writing && !known);
}

async function find(query = "", match = "") {
  frame.closeDrawer(false);
  (await import("./chat/find.js")).openFind(store, room, transcript, query, match);
}

byId("brand-buttons").append(
  appMenuButton(store, room, {
    openModels: model.openMenu,
    importSession: library.import,
    find,
    transcript,
    closeDrawer: () => frame.closeDrawer(),
    openKeyList,
  }),
  frame.closeButton("left"),
);

store.on(["session"], () => {
  const id = store.state.session?.id;
  if (!id || sessionInAddress()) return; // else the new session has become a real one
  nameInAddress(id, false);
  remember("last", id);
});
// A session's summary changes with it: its title, who is writing, how many messages.
let listed = "";
store.on(["session", "live"], () => {
  const { session, live } = store.state;
  const key = JSON.stringify([session?.id, session?.title, session?.messages.length, live.size, session?.bots]);
  if (key === listed) return;
  listed = key;
  if (!store.state.loading) library.reload(); // else it has just come
});
/** Back and Forward, before which what lies over the page goes, and the page stays; or an address by hand. */
window.addEventListener("popstate", ({ state }) => {
  const id = sessionInAddress();
  if (state && closeTop()) nameInAddress(store.state.session?.id || "", true);
  else if (id) open(id);
  else if (!location.hash) openNew();
});
/** @type {HTMLElement} */ (document.querySelector(".skip")).addEventListener("click", (event) => {
  event.preventDefault(); // its address is none of a session
  composer.focus();
});
window.addEventListener("pagehide", () => {
  room.flushPatch();
});

async function start() {
  const wanted = sessionInAddress() || recall("last");
  const reading = wanted ? room.read(wanted) : undefined;
  reading?.catch(() => {}); // one that is gone is not in the list
  const bodies = await Promise.all([
    get("/api/bots"),
    get("/api/settings"),
    get("/api/sessions"),
    get("/api/status"),
  ]).catch(toastError);
  if (!bodies) return;
  const [bots, settingsBody, list, status] = bodies;
  store.set({
    bots: bots.bots,
    settings: settingsBody,
    sessions: list.sessions,
    problems: list.problems || [],
    status,
    slot: status.slot,
  });
  if (wanted && list.sessions.some((one) => one.id === wanted)) await open(wanted, reading);
  else await openNew();
  store.set({ loading: false });
  if (!store.state.editing) composer.rest();
  changes.start(status.changes);
  if ("requestIdleCallback" in window) requestIdleCallback(rightPanel, { timeout: 1000 });
  else setTimeout(rightPanel, 200); // Safari
}

start();
