// One camera for both pictures: fit, zoom around a point, pan, pinch. It moves pictures and knows nothing of what they show.

const MAX_SCALE = 32

class Camera {
  // `naturalPx` gives the side of a picture, `isSplit` whether two stand side by side, `changed` is told of each move,
  // and `wiped` of the share (0 to 100) at which the wipe's handle is held.
  constructor(stage, { naturalPx, isSplit, changed, wiped }) {
    Object.assign(this, { stage, naturalPx, isSplit, changed, wiped })
    this.held = null // {scale, x, y}: of a picture inside its layer; null is "fit"
    this.pointers = new Map()
    stage.addEventListener("wheel", (event) => {
      event.preventDefault()
      this.zoom(Math.exp(-event.deltaY / 400), this.point(event))
    }, { passive: false })
    stage.addEventListener("dblclick", () => this.fit())
    stage.addEventListener("pointerdown", (event) => this.press(event))
    stage.addEventListener("pointermove", (event) => this.drag(event))
    for (const end of ["pointerup", "pointercancel"]) {
      stage.addEventListener(end, (event) => { this.pointers.delete(event.pointerId); this.wiping = false })
    }
  }

  box() {
    const width = this.stage.clientWidth / (this.isSplit() ? 2 : 1)
    return { width, height: this.stage.clientHeight }
  }

  fitting() {
    const { width, height } = this.box(), side = this.naturalPx()
    const scale = Math.max(0.05, Math.min((width - 24) / side, (height - 24) / side))
    return { scale, x: (width - side * scale) / 2, y: (height - side * scale) / 2 }
  }

  now() {
    return this.held ?? this.fitting()
  }

  fit() {
    this.held = null
    this.changed()
  }

  zoom(factor, around) {
    const { width, height } = this.box()
    const point = around ?? { x: width / 2, y: height / 2 }
    const { scale, x, y } = this.now()
    const next = Math.min(MAX_SCALE, Math.max(0.1, scale * factor)), ratio = next / scale
    this.held = { scale: next, x: point.x - (point.x - x) * ratio, y: point.y - (point.y - y) * ratio }
    this.changed()
  }

  place(images) {
    const { scale, x, y } = this.now()
    for (const image of images) {
      image.style.width = `${this.naturalPx()}px`
      image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`
      image.classList.toggle("crisp", scale >= 2)
    }
    return scale
  }

  point(event) {
    const edge = this.stage.getBoundingClientRect(), { width } = this.box()
    return { x: (event.clientX - edge.left) % width, y: event.clientY - edge.top }
  }

  press(event) {
    this.stage.setPointerCapture(event.pointerId)
    this.pointers.set(event.pointerId, event)
    this.wiping = event.target.matches(".handle")
    this.stage.focus()
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId)
    if (!before) return
    if (this.wiping) {
      const edge = this.stage.getBoundingClientRect()
      return this.wiped(Math.min(100, Math.max(0, (100 * (event.clientX - edge.left)) / edge.width)))
    }
    const others = [...this.pointers.values()].filter((other) => other.pointerId !== event.pointerId)
    this.pointers.set(event.pointerId, event)
    if (others.length) {
      const spread = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY)
      return this.zoom(spread(event) / Math.max(1, spread(before)), this.point(event))
    }
    const at = this.now()
    this.held = { ...at, x: at.x + event.clientX - before.clientX, y: at.y + event.clientY - before.clientY }
    this.changed()
  }
}
