// @ts-check
/**
 * The dialog in which a bot is made or changed: name, colour, persona, greeting, and the sampling values it insists on.
 * @import { Bot, Parameter } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, iconButton, monogram } from "../base/dom.js";
import { patch, post, remove } from "../server/api.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { openMenu } from "../overlays/menu.js";
import { toast, toastError } from "../overlays/toast.js";
import { parameterField } from "./field.js";

/** All reach 4.5:1 with white. */
const COLORS = ["#8a5a2b", "#3a6ea5", "#7a4a86", "#0f6b5c", "#a5452b", "#5a6b1f", "#4a5a8a", "#9a3b5f", "#6d6659"];
const COLOR_NAMES = ["Brown", "Blue", "Purple", "Green", "Rust", "Olive", "Indigo", "Rose", "Grey"];

/** @param {string} label @param {HTMLElement} input @param {string} help */
function labelled(label, input, help) {
  return h(
    "label",
    { class: "stacked" },
    h("span", { class: "label", text: label }),
    input,
    help && h("span", { class: "help", text: help }),
  );
}

/** @param {string} chosen @param {(color: string) => void} onChange */
function colorChoice(chosen, onChange) {
  const colors = COLORS.includes(chosen.toLowerCase()) ? COLORS : [chosen.toLowerCase(), ...COLORS];
  return h(
    "fieldset",
    { class: "swatches" },
    h("legend", { class: "label", text: "Colour" }),
    ...colors.map((color) => {
      const name = COLOR_NAMES[COLORS.indexOf(color)] || "Its own";
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

/** The sampling values of its own. @param {Store} store @param {Record<string, any>} sampling changed in place */
function overridesEditor(store, sampling) {
  const specs = (store.state.settings?.parameters || []).filter((spec) => spec.group !== "advanced");
  const rows = h("div", {});
  const add = h("button", {
    type: "button",
    class: "button",
    text: "Add a value",
    "aria-haspopup": "menu",
    on: {
      click: () =>
        openMenu(
          add,
          "Add a value",
          specs
            .filter((spec) => !(spec.name in sampling))
            .map((spec) => ({
              label: spec.label,
              help: spec.help,
              onSelect: () => {
                sampling[spec.name] = structuredClone(spec.default);
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
            draw();
            add.focus();
          };
          const field = parameterField(spec, {
            most: undefined,
            onReset: drop,
            onChange: (value) => {
              sampling[spec.name] = value;
            },
          });
          field.show(sampling[spec.name], true);
          field.element.querySelector(".reset")?.replaceWith(iconButton("x", `Remove ${spec.label}`, drop));
          return field.element;
        }),
    );
  }
  draw();
  return h(
    "fieldset",
    { class: "overrides" },
    h("legend", { class: "label", text: "Sampling of its own" }),
    h("p", { class: "help", text: "These values beat those of the session." }),
    rows,
    add,
  );
}

/**
 * @param {Store} store
 * @param {Bot | null} bot null: a new one
 * @param {() => Promise<void>} reloadBots
 * @param {(bot: Bot) => void} onSaved
 */
export function editBot(store, bot, reloadBots, onSaved) {
  const color = bot?.color || COLORS[store.state.bots.length % COLORS.length];
  const draft = { color, sampling: structuredClone(bot?.sampling || {}) };
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
  name.value = bot?.name || "";
  persona.value = bot?.persona || "You are {{char}}, ";
  greeting.value = bot?.greeting || "";
  let mark = monogram(name.value || "?", color, "big");
  const repaint = () => {
    const fresh = monogram(name.value || "?", draft.color, "big");
    mark.replaceWith(fresh);
    mark = fresh;
  };
  name.addEventListener("input", repaint);
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });

  async function save() {
    const fields = {
      name: name.value.trim(),
      color: draft.color,
      persona: persona.value.trim(),
      greeting: greeting.value.trim(),
      sampling: draft.sampling,
    };
    try {
      const body = bot
        ? await patch(`/api/bots/${bot.id}`, { revision: bot.revision, ...fields })
        : await post("/api/bots", fields);
      dialog.close();
      await reloadBots();
      onSaved(body.bot);
    } catch (error) {
      wrong.hidden = false;
      wrong.textContent = /** @type {Error} */ (error).message;
      if (/** @type {any} */ (error).status === 409) reloadBots();
    }
  }

  const dialog = openDialog(
    bot ? `Edit ${bot.name}` : "New bot",
    [
      h("div", { class: "bot-head" }, mark, labelled("Name", name, "")),
      colorChoice(color, (chosen) => {
        draft.color = chosen;
        repaint();
      }),
      labelled(
        "Persona",
        persona,
        "Who it is, as the model is told. {{char}} stands for its name, {{user}} for yours.",
      ),
      labelled("Greeting", greeting, "Its first words in a new session. May stay empty."),
      overridesEditor(store, draft.sampling),
      wrong,
    ],
    {
      wide: true,
      onSubmit: save,
      actions: [
        bot &&
          dialogButton("Delete", "ghost danger at-start", () => {
            dialog.close();
            deleteBot(reloadBots, bot);
          }),
        dialogButton("Cancel", "ghost", () => dialog.close()),
        dialogButton(bot ? "Save" : "Create", "primary", null),
      ],
    },
  );
}

/** @param {() => Promise<void>} reloadBots @param {Bot} bot */
async function deleteBot(reloadBots, bot) {
  const body = await remove(`/api/bots/${bot.id}`).catch(toastError);
  if (!body) return;
  await reloadBots();
  toast(`Deleted ${bot.name}.`, {
    action: "Undo",
    onAction: async () => {
      await post("/api/bots/restore", { undo: body.undo }).catch(toastError);
      reloadBots();
    },
  });
}
