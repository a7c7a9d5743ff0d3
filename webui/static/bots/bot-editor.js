// @ts-check
/**
 * The dialog in which a bot is made or changed: name, colour, persona, greetings, its adapter, by which model
 * it speaks, and the sampling values it insists on.
 * @import { Bot, Parameter } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, iconButton, monogram } from "../base/dom.js";
import { isSameName } from "../base/format.js";
import { t, together } from "../base/language.js";
import { recall, remember } from "../base/storage.js";
import { ApiError, get, patch, post } from "../server/api.js";
import { pictureOf } from "../session/store.js";
import { merged } from "../session/unsaved.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { openMenu } from "../overlays/menu.js";
import { toast, toastError } from "../overlays/toast.js";
import { adapterChoice } from "./adapters.js";
import { deleteBot, moreButton } from "./bot-actions.js";
import { botModel } from "./bot-model.js";
import { labelled, loreOfBot, moreOfBot } from "./bot-more.js";
import { botPicture } from "./bot-picture.js";
import { parameterField } from "../sampling/field.js";

/** All reach 4.5:1 with white. */
const COLORS = ["#8a5a2b", "#3a6ea5", "#7a4a86", "#0f6b5c", "#a5452b", "#5a6b1f", "#4a5a8a", "#9a3b5f", "#6d6659"];
const COLOR_NAMES = [t("Brown"), t("Blue"), t("Purple"), t("Green"), t("Rust"), t("Olive"), t("Indigo"), t("Rose"), t("Grey")];

/** @param {string} chosen @param {(color: string) => void} onChange */
function colorChoice(chosen, onChange) {
  const colors = COLORS.includes(chosen.toLowerCase()) ? COLORS : [chosen.toLowerCase(), ...COLORS];
  return h(
    "fieldset",
    { class: "swatches" },
    h("legend", { class: "label", text: t("Colour") }),
    ...colors.map((color) => {
      const name = COLOR_NAMES[COLORS.indexOf(color)] || t("Its own");
      const input = h("input", {
        type: "radio",
        name: "color",
        value: color,
        class: "visually-hidden",
        "aria-label": name,
        on: { change: () => onChange(color) },
      });
      input.checked = color === chosen.toLowerCase();
      const dot = h("span", { class: "swatch", title: name });
      dot.style.backgroundColor = color;
      return h("label", {}, input, dot);
    }),
  );
}

/**
 * The sampling values of its own.
 * @param {Store} store @param {Record<string, any>} sampling changed in place @param {() => void} changed
 */
function overridesEditor(store, sampling, changed) {
  const thinks = store.state.status?.model?.thinks;
  const specs = (store.state.settings?.parameters || []).filter(
    (spec) => spec.group !== "advanced" && (spec.group !== "thinking" || thinks || spec.name in sampling),
  );
  const rows = h("div", {});
  const add = h("button", {
    type: "button",
    class: "button",
    text: t("Add a value"),
    "aria-haspopup": "menu",
    on: {
      click: () =>
        openMenu(
          add,
          t("Add a value"),
          specs
            .filter((spec) => !(spec.name in sampling))
            .map((spec) => ({
              label: spec.label,
              help: spec.help,
              onSelect: () => {
                sampling[spec.name] = structuredClone(spec.default);
                changed();
                draw();
              },
            })),
        ),
    },
  });

  function draw() {
    rows.replaceChildren(
      ...specs
        .filter((spec) => spec.name in sampling)
        .map((spec) => {
          const drop = () => {
            delete sampling[spec.name];
            changed();
            draw();
            add.focus();
          };
          const field = parameterField(spec, {
            most: undefined,
            onReset: drop,
            onChange: (value) => {
              sampling[spec.name] = value;
              changed();
            },
          });
          field.show(sampling[spec.name], true);
          field.element.querySelector(".reset")?.replaceWith(iconButton("x", t("Remove {name}", { name: spec.label }), drop));
          return field.element;
        }),
    );
  }
  draw();
  return h(
    "fieldset",
    { class: "overrides" },
    h("legend", { class: "label", text: t("Sampling of its own") }),
    h("p", { class: "help", text: t("Its defaults. What a session or its preset sets counts instead.") }),
    rows,
    add,
  );
}

/**
 * @typedef {Pick<Bot, "name" | "color" | "persona" | "greeting" | "sampling" | "engine"> &
 *   {adapter: string, alternate_greetings: string[], example_dialogue: string,
 *   post_history_instructions: string, nickname: string, picture?: string, lore_book?: any}} Fields
 */

/** @param {any} a @param {any} b */
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @param {Bot | null} bot */
const draftKey = (bot) => `bot.${bot?.id || "new"}`;

/** What a bot without the field has there; a text, if it is not named here. @type {Record<string, any>} */
const EMPTY = { alternate_greetings: [], engine: null, lore_book: null };
/** What lists leave out: it is in a draft once it is changed. */
const UNLISTED = ["picture", "lore_book"];

/** @param {any} bot @param {string} name */
const valueOf = (bot, name) => bot[name] ?? (name in EMPTY ? EMPTY[name] : "");

/**
 * What is another than the bot has; of what lists leave out, all that was changed.
 * @param {any} bot @param {Partial<Fields>} fields
 */
const changesOf = (bot, fields) =>
  Object.fromEntries(Object.entries(fields).filter(([name, value]) => UNLISTED.includes(name) || !same(value, valueOf(bot, name))));

/** What was typed before and not saved. @param {Bot | null} bot @returns {Fields | null} */
function recallDraft(bot) {
  try {
    return JSON.parse(recall(draftKey(bot), "null"));
  } catch {
    return null;
  }
}

/**
 * Save what was changed, and only that: another tab may have changed the rest meanwhile.
 * @param {Bot} bot @param {Partial<Fields>} fields @returns {Promise<{bot: Bot}>}
 */
async function saveChanges(bot, fields) {
  const changed = changesOf(bot, fields);
  try {
    return await patch(`/api/bots/${bot.id}`, { revision: bot.revision, ...changed });
  } catch (error) {
    const now = error instanceof ApiError && error.status === 409 && error.body?.current;
    if (!now) throw error;
    for (const name of Object.keys(changed)) changed[name] = merged(name, bot[name], changed[name], now[name] ?? now.card?.[name]);
    return patch(`/api/bots/${bot.id}`, { revision: now.revision, ...changed });
  }
}

/**
 * What these fields will change, as it is before that; what lists leave out has to be asked for.
 * @param {Bot} bot @param {Fields} fields @returns {Promise<Partial<Fields>>}
 */
async function fieldsBefore(bot, fields) {
  const before = Object.fromEntries(Object.keys(changesOf(bot, fields)).map((name) => [name, valueOf(bot, name)]));
  const unlisted = UNLISTED.filter((name) => name in before);
  const now = unlisted.length ? (await get(`/api/bots/${bot.id}`)).bot : {};
  for (const name of unlisted) before[name] = valueOf(now, name);
  return before;
}

/**
 * The boxes and choices of a bot.
 * @param {Store} store @param {Bot | null} bot as it is @param {Fields} draft changed in place
 * @param {() => void} changed
 */
function botForm(store, bot, draft, changed) {
  const there = pictureOf(bot);
  const name = h("input", {
    type: "text",
    class: "text-input",
    maxlength: "60",
    required: true,
    "data-autofocus": true,
    autocomplete: "off",
  });
  const persona = h("textarea", { class: "text-input", rows: "7", maxlength: "50000", dir: "auto" });
  const greeting = h("textarea", { class: "text-input", rows: "2", maxlength: "50000", dir: "auto" });
  let mark = h("span", {});
  const picture = botPicture((chosen) => {
    draft.picture = chosen;
    repaint();
    changed();
  });
  const repaint = () => {
    const shown = draft.picture ? `data:image/png;base64,${draft.picture}` : draft.picture ?? there;
    const fresh = monogram(draft.name || "?", draft.color, "big", shown);
    mark.replaceWith(fresh);
    mark = fresh;
    picture.show(shown !== "");
  };
  for (const [field, input] of Object.entries({ name, persona, greeting })) {
    input.value = draft[field];
    input.addEventListener("input", () => {
      draft[field] = input.value;
      if (field === "name") repaint();
      changed();
    });
  }
  const adapter = adapterChoice(store.state, draft.adapter, (chosen) => {
    draft.adapter = chosen;
    changed();
  });
  const parts = [
    h("div", { class: "bot-head" }, mark, labelled(t("Name"), name, "")),
    picture.element,
    colorChoice(draft.color, (chosen) => {
      draft.color = chosen;
      repaint();
      changed();
    }),
    labelled(
      t("Persona"),
      persona,
      t("Who it is, as the model is told. {{char}} stands for its name, {{user}} for yours."),
    ),
    labelled(t("Greeting"), greeting, t("Its first words in a new session. May stay empty.")),
    ...moreOfBot(draft, changed),
    loreOfBot(bot, draft, changed),
    adapter && labelled(t("Adapter"), adapter, t("Small weights beside the model's, which change how it writes.")),
    botModel(store, draft.engine, (engine) => {
      draft.engine = engine;
      changed();
    }),
    overridesEditor(store, draft.sampling, changed),
  ];
  repaint();
  return parts.filter(Boolean);
}

/**
 * What is typed is kept in this browser until it is saved or dropped: closing the dialog loses nothing.
 * @param {Store} store
 * @param {Bot | null} bot null: a new one
 * @param {() => Promise<void>} reloadBots
 * @param {(bot: Bot) => void} onSaved
 */
export function editBot(store, bot, reloadBots, onSaved) {
  const color = bot?.color || COLORS[store.state.bots.length % COLORS.length];
  /** @type {Fields} */
  const before = {
    name: bot?.name || "",
    color,
    persona: bot?.persona ?? "You are {{char}}, ",
    greeting: bot?.greeting || "",
    alternate_greetings: bot?.alternate_greetings || [],
    example_dialogue: bot?.example_dialogue || "",
    post_history_instructions: bot?.post_history_instructions || "",
    nickname: bot?.nickname || "",
    sampling: bot?.sampling || {},
    adapter: bot?.adapter || "",
    engine: bot?.engine || null,
  };
  const kept = recallDraft(bot);
  const draft = structuredClone({ ...before, ...kept });
  const isChanged = () => !same(draft, before);
  const keep = () => remember(draftKey(bot), isChanged() ? JSON.stringify(draft) : "");
  const drop = () => {
    remember(draftKey(bot), "");
    done = true;
    dialog.close();
  };
  const again = () => editBot(store, store.state.bots.find((one) => one.id === bot?.id) || null, reloadBots, onSaved);
  let done = false;
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });

  async function save() {
    const fields = {
      ...draft,
      name: draft.name.trim(),
      persona: draft.persona.trim(),
      greeting: draft.greeting.trim(),
      alternate_greetings: draft.alternate_greetings.map((text) => text.trim()).filter(Boolean),
      example_dialogue: draft.example_dialogue.trim(),
      post_history_instructions: draft.post_history_instructions.trim(),
      nickname: draft.nickname.trim(),
    };
    const other = store.state.bots.find((one) => one.id !== bot?.id && isSameName(one.name, fields.name));
    try {
      if (other) throw new Error(t("There is a bot called {name} already; the model could not tell them apart.", other));
      const before = bot && (await fieldsBefore(bot, fields));
      const body = await (bot ? saveChanges(bot, fields) : post("/api/bots", { ...fields, engine: fields.engine || undefined }));
      drop();
      await reloadBots();
      onSaved(body.bot);
      if (before && Object.keys(before).length)
        toast(t("Saved “{name}”.", body.bot), {
          action: t("Undo"),
          onAction: async () => {
            await saveChanges({ ...body.bot, ...fields }, before).catch(toastError);
            await reloadBots();
          },
        });
    } catch (error) {
      const { message, hint } = /** @type {ApiError} */ (error);
      wrong.hidden = false;
      wrong.textContent = together(message, hint);
    }
  }

  const dialog = openDialog(
    bot ? t("Edit {name}", bot) : t("New bot"),
    [
      kept &&
        h(
          "p",
          { class: "help kept" },
          t("This is what you typed before; it is not saved yet."),
          " ",
          h("button", {
            type: "button",
            class: "text-button",
            text: t("Start over"),
            on: {
              click: () => {
                drop();
                again();
              },
            },
          }),
        ),
      ...botForm(store, bot, draft, keep),
    ].filter(Boolean),
    {
      wide: true,
      onSubmit: save,
      onClose() {
        if (done || !isChanged()) return;
        const said = bot
          ? t("What you changed of {name} is kept, but not saved.", bot)
          : t("The new bot is kept, but not saved.");
        toast(said, { action: t("Go on"), onAction: again });
      },
      actions: [
        wrong,
        bot &&
          dialogButton(t("Delete"), "ghost danger at-start", () => {
            drop();
            deleteBot(reloadBots, bot);
          }),
        bot && moreButton(bot, () => dialog.close(), reloadBots),
        dialogButton(t("Cancel"), "ghost", drop),
        dialogButton(bot ? t("Save") : t("Create"), "primary", null),
      ],
    },
  );
}
