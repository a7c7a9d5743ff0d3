// @ts-check
/** The dialog that tells how a phone or another computer opens this Parlor. */

import { h } from "../base/dom.js";
import { t, tParts } from "../base/language.js";
import { openDialog } from "./dialogs.js";

/** @param {string} address */
export function openOtherDevices(address) {
  openDialog(t("On another device"), [
    h(
      "p",
      {},
      ...tParts("Open {address} on a device in the same network, or point its camera at this:", {
        address: h("code", { class: "device-address", text: address }),
      }),
    ),
    h("img", { class: "qr", src: "/api/other-devices.svg", alt: t("QR code of {address}", { address }), width: 220, height: 220 }),
    h("p", { text: t("It asks for the password there.") }),
  ]);
}
