// Two checkpoints of one prompt and seed, large. It only shows what Python gives as `data`: pictures by their address,
// texts as text (never as HTML). What is looked at lives in the page's address, so a view is a link.

const VIEWS = [["wipe", "Wipe"], ["fade", "Fade"], ["difference", "Difference"], ["side", "Side by side"]]
const AMOUNTS = { wipe: ["Wipe", 50], fade: ["A to B", 50], difference: ["Brighter", 0] }
const MAX_SCALE = 32

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const dialog = parentElement.querySelector("dialog")
  const view = dialog.loupe ?? (dialog.loupe = new LargeView(dialog))
  view.listen()
  view.take(data, setTriggerValue)
  return () => view.stop()
}

class LargeView {
  constructor(dialog) {
    this.dialog = dialog
    this.find = (selector) => dialog.querySelector(selector)
    this.stage = this.find(".stage")
    this.amounts = Object.fromEntries(Object.entries(AMOUNTS).map(([name, [, start]]) => [name, start]))
    this.state = { look: null, a: null, b: null, view: "wipe" }
    this.camera = null // {scale, x, y}: of a picture inside its layer; null is "fit"
    this.pointers = new Map()
    this.resized = new ResizeObserver(() => this.place())
    this.onClick = (event) => this.clicked(event)
    this.build()
  }

  listen() {
    document.addEventListener("click", this.onClick, true)
    this.resized.observe(this.stage)
  }

  stop() {
    document.removeEventListener("click", this.onClick, true)
    this.resized.disconnect()
  }

  take(data, trigger) {
    const turned = this.data && this.data.page !== data.page
    this.data = data
    this.turn = (way) => trigger("turn", way)
    if (turned && this.entering && data.rows.length) {
      this.state.look = (this.entering > 0 ? data.rows[0] : data.rows.at(-1)).id
      this.entering = 0
      this.write()
    }
    if (!this.read()) return this.dialog.open && this.dialog.close()
    this.open()
  }

  // --- the address ---------------------------------------------------------------------------------------------------

  read() {
    const asked = new URLSearchParams(location.search)
    const steps = this.data.steps.map((step) => step.name)
    const row = this.data.rows.find((known) => known.id === asked.get("look"))
    if (!row) return false
    const b = steps.includes(asked.get("b")) ? asked.get("b") : this.data.against_base
    const a = steps.includes(asked.get("a")) ? asked.get("a") : steps[0]
    const view = VIEWS.some(([name]) => name === asked.get("view")) ? asked.get("view") : "wipe"
    this.state = { look: row.id, a, b, view }
    return true
  }

  write() {
    const address = new URL(location.href)
    for (const [name, value] of Object.entries(this.state)) {
      if (this.state.look === null) address.searchParams.delete(name)
      else address.searchParams.set(name, value)
    }
    history.replaceState(history.state, "", address)
  }

  // --- opening and walking -------------------------------------------------------------------------------------------

  clicked(event) {
    const link = event.target.closest?.("a.lp-shot[data-look]")
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return
    const [look, step] = link.dataset.look.split("/")
    if (!this.data.rows.some((row) => row.id === look)) return
    event.preventDefault()
    const steps = this.data.steps.map((known) => known.name)
    const name = step === "0" ? "base" : step
    const base = steps[0]
    this.state = { ...this.state, look, a: base, b: name === base ? this.data.against_base : name }
    this.camera = null
    this.write()
    this.open()
  }

  open() {
    if (!this.dialog.open) {
      this.dialog.showModal()
      this.stage.focus()
    }
    this.show()
  }

  close() {
    this.state = { ...this.state, look: null }
    this.write()
    this.dialog.close()
  }

  row() {
    return this.data.rows.find((row) => row.id === this.state.look)
  }

  move(side, way) {
    const steps = this.data.steps.map((step) => step.name)
    const next = steps[steps.indexOf(this.state[side]) + way]
    if (next !== undefined) this.set({ [side]: next })
  }

  walk(way) {
    const next = this.data.rows[this.data.rows.indexOf(this.row()) + way]
    if (next) return this.set({ look: next.id })
    const page = this.data.page + way
    if (page < 1 || page > this.data.n_pages) return
    this.entering = way
    this.turn(way)
  }

  set(change) {
    Object.assign(this.state, change)
    this.write()
    this.show()
  }

  key(event) {
    if (event.target.matches("input") && event.key.startsWith("Arrow")) return
    const side = event.shiftKey ? "a" : "b"
    const actions = {
      ArrowLeft: () => this.move(side, -1), ArrowRight: () => this.move(side, 1),
      ArrowUp: () => this.walk(-1), ArrowDown: () => this.walk(1),
      " ": () => this.set({ a: this.state.b, b: this.state.a }),
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5),
      0: () => this.fit(), Escape: () => this.close(),
    }
    VIEWS.forEach(([name], place) => { actions[place + 1] = () => this.set({ view: name }) })
    event.stopPropagation()
    const action = actions[event.key]
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    action()
  }

  // --- showing -------------------------------------------------------------------------------------------------------

  build() {
    for (const [name, label] of VIEWS) {
      const button = element("button", { textContent: label, onclick: () => this.set({ view: name }) })
      button.setAttribute("role", "radio")
      button.dataset.view = name
      this.find(".modes").append(button)
    }
    const slider = this.find(".amount input")
    slider.oninput = () => { this.amounts[this.state.view] = Number(slider.value); this.place() }
    slider.onchange = () => this.stage.focus()
    for (const button of this.dialog.querySelectorAll("[data-zoom]")) {
      button.onclick = () => ({ in: () => this.zoom(1.5), out: () => this.zoom(1 / 1.5), fit: () => this.fit() })[button.dataset.zoom]()
    }
    this.find(".close").onclick = () => this.close()
    this.dialog.addEventListener("keydown", (event) => this.key(event))
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.close() })
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault()
      this.zoom(Math.exp(-event.deltaY / 400), this.point(event))
    }, { passive: false })
    this.stage.addEventListener("dblclick", () => this.fit())
    this.stage.addEventListener("pointerdown", (event) => this.press(event))
    this.stage.addEventListener("pointermove", (event) => this.drag(event))
    for (const end of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(end, (event) => { this.pointers.delete(event.pointerId); this.wiping = false })
    }
  }

  show() {
    const row = this.row()
    this.find("h2").textContent = row.prompt
    const seed = row.seed === null ? "" : ` · seed ${row.seed}`
    this.find(".seed").textContent = `${row.prompt_id} · seed index ${row.seed_index}${seed}`
    for (const button of this.find(".modes").children) {
      button.setAttribute("aria-checked", String(button.dataset.view === this.state.view))
    }
    this.stage.dataset.view = this.state.view
    const amount = AMOUNTS[this.state.view]
    this.find(".amount").hidden = !amount
    if (amount) {
      this.find(".amount span").textContent = amount[0]
      this.find(".amount input").value = this.amounts[this.state.view]
    }
    for (const side of ["a", "b"]) this.showPicture(side, row)
    this.find("nav").replaceChildren(...this.data.steps.map((step) => this.thumbnail(step, row)))
    this.find("nav .b")?.scrollIntoView({ block: "nearest", inline: "nearest" })
    this.find(".facts").replaceChildren(this.facts("a", row), this.facts("b", row))
    this.find(".spoken").textContent = `${this.label("a")} against ${this.label("b")}, ${row.prompt_id}, seed ${row.seed_index}`
    this.place()
  }

  label(side) {
    return this.data.steps.find((step) => step.name === this.state[side]).label
  }

  showPicture(side, row) {
    const layer = this.find(`.layer.${side}`), cell = row.cells[this.state[side]]
    const image = layer.querySelector("img")
    image.hidden = !cell?.url
    if (cell?.url && image.getAttribute("src") !== cell.url) image.src = cell.url
    image.alt = `${this.label(side)}: ${row.prompt}`
    layer.querySelector(".hole").textContent = cell?.url ? "" : cell?.reason || "There is no picture here."
    this.find(`.tag.${side}`).textContent = `${side.toUpperCase()}  ${this.label(side)}`
  }

  thumbnail(step, row) {
    const cell = row.cells[step.name]
    const sides = ["a", "b"].filter((side) => this.state[side] === step.name)
    const button = element("button", {
      className: sides.join(" "),
      title: "Click: show as B. Shift and click: as A.",
      onclick: (event) => this.set({ [event.shiftKey ? "a" : "b"]: step.name }),
    })
    const inside = cell?.thumbnail ? element("img", { src: cell.thumbnail, alt: "" }) : element("i", { textContent: "–" })
    const marks = sides.map((side) => side.toUpperCase()).join(" ")
    button.append(inside, `${marks ? `${marks}: ` : ""}${step.label}`)
    return button
  }

  facts(side, row) {
    const cell = row.cells[this.state[side]]
    const part = element("div", {})
    part.append(element("h3", { textContent: `${side.toUpperCase()}  ${this.label(side)}` }))
    if (!cell) return part
    if (cell.reason) part.append(element("p", { className: "reason", textContent: cell.reason }))
    const list = element("dl", {})
    for (const [name, value] of cell.scores) {
      const pair = element("div", {})
      pair.append(element("dt", { textContent: name }), element("dd", { textContent: value }))
      list.append(pair)
    }
    part.append(list)
    if (cell.sha256) part.append(line("SHA-256", cell.sha256))
    part.append(line("Draw it again", row.command.join(cell.step)))
    return part
  }

  // --- zoom and pan: one camera for both pictures --------------------------------------------------------------------

  box() {
    const width = this.stage.clientWidth / (this.state.view === "side" ? 2 : 1)
    return { width, height: this.stage.clientHeight }
  }

  fitting() {
    const { width, height } = this.box(), side = this.data.natural_px
    const scale = Math.max(0.05, Math.min((width - 24) / side, (height - 24) / side))
    return { scale, x: (width - side * scale) / 2, y: (height - side * scale) / 2 }
  }

  fit() {
    this.camera = null
    this.place()
  }

  zoom(factor, around) {
    const { width, height } = this.box()
    const point = around ?? { x: width / 2, y: height / 2 }
    const { scale, x, y } = this.camera ?? this.fitting()
    const next = Math.min(MAX_SCALE, Math.max(0.1, scale * factor)), ratio = next / scale
    this.camera = { scale: next, x: point.x - (point.x - x) * ratio, y: point.y - (point.y - y) * ratio }
    this.place()
  }

  place() {
    if (!this.dialog.open || !this.data) return
    const { scale, x, y } = this.camera ?? this.fitting()
    for (const image of this.stage.querySelectorAll("img")) {
      image.style.width = `${this.data.natural_px}px`
      image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`
      image.classList.toggle("crisp", scale >= 2)
    }
    const { wipe, fade, difference } = this.amounts, top = this.find(".layer.b"), view = this.state.view
    top.style.clipPath = view === "wipe" ? `inset(0 0 0 ${wipe}%)` : ""
    top.style.opacity = view === "fade" ? fade / 100 : 1
    this.stage.style.filter = view === "difference" ? `brightness(${1 + difference / 10})` : ""
    this.find(".handle").style.left = `${wipe}%`
    this.find(".zoom output").textContent = `${Math.round(scale * 100)} %`
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
      this.amounts.wipe = Math.min(100, Math.max(0, (100 * (event.clientX - edge.left)) / edge.width))
      this.find(".amount input").value = this.amounts.wipe
      return this.place()
    }
    const others = [...this.pointers.values()].filter((other) => other.pointerId !== event.pointerId)
    this.pointers.set(event.pointerId, event)
    if (others.length) {
      const spread = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY)
      return this.zoom(spread(event) / Math.max(1, spread(before)), this.point(event))
    }
    const camera = this.camera ?? this.fitting()
    this.camera = { ...camera, x: camera.x + event.clientX - before.clientX, y: camera.y + event.clientY - before.clientY }
    this.place()
  }
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties)
}

function line(name, text) {
  const shown = element("div", {})
  const copy = element("button", { className: "copy", textContent: "Copy" })
  copy.onclick = async () => {
    await navigator.clipboard.writeText(text)
    copy.textContent = "Copied"
    setTimeout(() => { copy.textContent = "Copy" }, 1500)
  }
  shown.append(element("span", { textContent: `${name} ` }), element("code", { textContent: text }), copy)
  return shown
}
