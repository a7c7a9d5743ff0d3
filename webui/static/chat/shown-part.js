// @ts-check
/**
 * Which part of a long session is on the page: the messages from `first` to `end` of the path. The part
 * moves as the reader scrolls and never holds more elements than a bound, so that a thousand messages cost
 * no more than fifty.
 * @import { Pin } from "./scroll.js"
 */

/** Elements the window may hold; a screen of messages rarely takes 500. */
const MAX_ELEMENTS = 2400;
const CHUNK = 10;
/** So long may messages be added before the page is painted; a long one takes some milliseconds. */
const TURN_MS = 12;
/** How far beyond the screen messages are kept ready. */
const AHEAD_PX = 1200;

export class ShownPart {
  first = 0;
  end = 0;
  #length = 0;
  #filling = 0;

  /**
   * @param {HTMLElement} scroller @param {HTMLElement} list @param {Pin} pin
   * @param {() => void} draw brings the elements in line with first and end
   * @param {(index: number) => boolean} isThere whether the text of a message has come; there is more when it
   *   comes: extend() and fill()
   */
  constructor(scroller, list, pin, draw, isThere) {
    this.scroller = scroller;
    this.list = list;
    this.pin = pin;
    this.draw = draw;
    this.isThere = isThere;
    scroller.addEventListener("scroll", () => this.extend(), { passive: true });
  }

  /** Bring in what the reader nears. */
  extend() {
    this.#extendUp();
    this.#extendDown();
  }

  /** So many messages before one, or as many as are there: where they begin. @param {number} index */
  #before(index) {
    let first = index;
    while (first > 0 && index - first < CHUNK && this.isThere(first - 1)) first -= 1;
    return first;
  }

  get isAtEnd() {
    return this.end >= this.#length;
  }

  /**
   * Begin with the last message of a path of `length`; fill() adds those before it.
   * @param {number} length
   */
  begin(length) {
    this.#length = length;
    this.first = Math.max(0, length - 1);
    this.end = length;
  }

  /** The path has another length; a part at its end stays there. @param {number} length */
  resize(length) {
    this.end = this.isAtEnd ? length : Math.min(this.end, length);
    this.#length = length;
    this.first = Math.min(this.first, Math.max(0, this.end - 1));
  }

  /**
   * Add messages above: at once until the screen is full, then in turns a bit more, so that the last are
   * painted first.
   */
  fill(ahead = 0) {
    clearTimeout(this.#filling);
    const until = performance.now() + TURN_MS;
    const lacks = (more) =>
      this.first > 0 && this.list.scrollHeight < this.scroller.clientHeight + more && this.isThere(this.first - 1);
    while (lacks(ahead) && performance.now() < until) {
      this.first -= 1;
      this.draw();
    }
    this.pin.follow();
    if (lacks(2 * AHEAD_PX))
      this.#filling = window.setTimeout(() => this.pin.pinned && this.fill(2 * AHEAD_PX));
  }

  /** Have a message on the page, with those around it. @param {number} index */
  showAround(index) {
    if (index >= this.first && index < this.end) return;
    this.first = this.#before(index);
    this.end = Math.min(this.#length, index + CHUNK);
    this.draw();
    while (!this.isAtEnd && this.list.scrollHeight < 2 * this.scroller.clientHeight) {
      this.end = Math.min(this.#length, this.end + CHUNK);
      this.draw();
    }
  }

  /** Let go of the first messages while there are too many elements. */
  trim() {
    while (this.#isTooLarge()) {
      this.first += CHUNK;
      this.draw();
    }
  }

  #isTooLarge() {
    return this.list.getElementsByTagName("*").length > MAX_ELEMENTS && this.end - this.first > 3 * CHUNK;
  }

  /**
   * The reader nears the first message on the page: put earlier ones before it and let go of the last ones.
   */
  #extendUp() {
    if (this.first === 0 || this.pin.pinned || this.scroller.scrollTop > AHEAD_PX / 2) return;
    const first = this.#before(this.first);
    if (first === this.first) return;
    this.#keepInPlace(this.list.querySelector(".message"), () => {
      this.first = first;
      this.draw();
      while (this.#isTooLarge()) {
        this.end -= CHUNK;
        this.draw();
      }
    });
  }

  #extendDown() {
    if (this.isAtEnd || this.pin.distance() > AHEAD_PX / 2) return;
    this.end = Math.min(this.#length, this.end + CHUNK);
    this.draw();
    if (this.#isTooLarge()) this.#keepInPlace([...this.list.querySelectorAll(".message")].at(-1), () => this.trim());
  }

  /**
   * What the reader sees stays where it is, whatever comes and goes above it.
   * @param {any} anchor @param {() => void} change
   */
  #keepInPlace(anchor, change) {
    const { top } = anchor.getBoundingClientRect();
    change();
    this.scroller.scrollTop += anchor.getBoundingClientRect().top - top;
    this.pin.lastTop = this.scroller.scrollTop;
  }
}
