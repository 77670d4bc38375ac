// Two checkpoints of one prompt and seed, large. It only shows what Python gives as `data`: pictures by their address,
// texts as text (never as HTML). What is looked at lives in the page's address, so a view is a link. Moving the pictures:
// large_view_camera.js; what is said of them: large_view_facts.js. Python joins the three to one module.

const VIEWS = [["wipe", "Wipe"], ["fade", "Fade"], ["difference", "Difference"], ["side", "Side by side"]]
const AMOUNTS = { wipe: ["Wipe", 50], fade: ["A to B", 50], difference: ["Brighter", 0] }

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
    this.camera = new Camera(this.stage, {
      naturalPx: () => this.data.natural_px,
      isSplit: () => this.state.view === "side",
      changed: () => this.place(),
      wiped: (share) => this.wipe(share),
    })
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
    this.dialog.dataset.rows = data.rows.length // until it is there, a click opens the picture's own address
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
    this.camera.held = null
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
      "+": () => this.camera.zoom(1.5), "=": () => this.camera.zoom(1.5), "-": () => this.camera.zoom(1 / 1.5),
      0: () => this.camera.fit(), Escape: () => this.close(),
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
    const zooms = { in: () => this.camera.zoom(1.5), out: () => this.camera.zoom(1 / 1.5), fit: () => this.camera.fit() }
    for (const button of this.dialog.querySelectorAll("[data-zoom]")) button.onclick = zooms[button.dataset.zoom]
    this.find(".close").onclick = () => this.close()
    this.dialog.addEventListener("keydown", (event) => this.key(event))
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.close() })
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
    const choose = (side, name) => this.set({ [side]: name })
    this.find("nav").replaceChildren(...this.data.steps.map((step) => {
      const marks = ["a", "b"].filter((side) => this.state[side] === step.name)
      return thumbnailOf(step, row.cells[step.name], marks, choose)
    }))
    this.find("nav .b")?.scrollIntoView({ block: "nearest", inline: "nearest" })
    const sides = ["a", "b"].map((side) => ({ mark: side.toUpperCase(), label: this.label(side), cell: row.cells[this.state[side]] }))
    this.find(".facts").replaceChildren(...factsOf(sides, row))
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

  wipe(share) {
    this.amounts.wipe = share
    this.find(".amount input").value = share
    this.place()
  }

  place() {
    if (!this.dialog.open || !this.data) return
    const scale = this.camera.place(this.stage.querySelectorAll("img"))
    const { wipe, fade, difference } = this.amounts, top = this.find(".layer.b"), view = this.state.view
    top.style.clipPath = view === "wipe" ? `inset(0 0 0 ${wipe}%)` : ""
    top.style.opacity = view === "fade" ? fade / 100 : 1
    this.stage.style.filter = view === "difference" ? `brightness(${1 + difference / 10})` : ""
    this.find(".handle").style.left = `${wipe}%`
    this.find(".zoom output").textContent = `${Math.round(scale * 100)} %`
  }
}
