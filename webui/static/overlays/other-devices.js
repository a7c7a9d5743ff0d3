// @ts-check
/** The dialog that tells how a phone or another computer opens this Parlor. */

import { h } from "../base/dom.js";
import { openDialog } from "./dialogs.js";

/** @param {string} address */
export function openOtherDevices(address) {
  openDialog("On another device", [
    h(
      "p",
      {},
      "Open ",
      h("code", { class: "device-address", text: address }),
      " on a device in the same network, or point its camera at this:",
    ),
    h("img", { class: "qr", src: "/api/other-devices.svg", alt: `QR code of ${address}`, width: 220, height: 220 }),
    h("p", { text: "It asks for the password there." }),
  ]);
}
