// @ts-check
/**
 * Keeps the transcript at its end while it grows, as long as the reader wants that. Scrolling up lets go at
 * once; only reaching the end takes hold again. Never smooth: that would fight with every token.
 */

/** So close to the end counts as reached (zoomed pages stop at fractions of a pixel). */
const END_PX = 4;

export class Pin {
  /**
   * @param {HTMLElement} scroller @param {HTMLElement} content @param {(pinned: boolean) => void} onChange
   */
  constructor(scroller, content, onChange) {
    this.scroller = scroller;
    this.content = content;
    this.onChange = onChange;
    this.pinned = true;
    this.lastTop = 0;
    this.lastSize = "";
    scroller.addEventListener(
      "wheel",
      (event) => {
        if (event.deltaY < 0) this.release();
      },
      { passive: true },
    );
    scroller.addEventListener(
      "touchmove",
      () => {
        if (this.distance() > END_PX) this.release();
      },
      { passive: true },
    );
    scroller.addEventListener("keydown", (event) => {
      if (["PageUp", "ArrowUp", "Home"].includes(event.key)) this.release();
    });
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.follow()).observe(content);
    new ResizeObserver(() => this.follow()).observe(scroller);
  }

  distance() {
    return this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
  }

  #scrolled() {
    const { scrollTop, clientWidth, clientHeight } = this.scroller;
    const size = `${clientWidth}x${clientHeight}`;
    // Where the box below grew, a keyboard went or a phone was turned, nobody has scrolled.
    if (size !== this.lastSize) this.follow();
    else if (scrollTop < this.lastTop - 1 && this.distance() > END_PX) this.release();
    else if (scrollTop > this.lastTop && this.distance() <= END_PX) this.hold();
    this.lastSize = size;
    this.lastTop = this.scroller.scrollTop;
  }

  /** If the reader is at the end, stay there; without any content (the welcome) there is none. */
  follow() {
    if (!this.pinned || !this.content.childElementCount) return;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.lastTop = this.scroller.scrollTop;
  }

  release() {
    if (!this.pinned || this.scroller.scrollHeight <= this.scroller.clientHeight) return;
    this.pinned = false;
    this.onChange(false);
  }

  hold() {
    if (!this.pinned) {
      this.pinned = true;
      this.onChange(true);
    }
    this.follow();
  }
}
