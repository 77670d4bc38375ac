// What is known of the two pictures that are looked at, as text (never as HTML): scores, the nearest training photo, hash
// and command; and the row of thumbnails below them. It shows what it is given and knows no address of its own.

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

function factsOf(title, cell, row) {
  const part = element("section", { className: "side" }, element("h3", { textContent: title }))
  if (!cell) return part
  if (cell.reason) part.append(element("p", { className: "reason", textContent: cell.reason }))
  if (cell.nearest) part.append(nearestPhoto(cell.nearest))
  const list = element("dl", {})
  for (const [name, value] of cell.scores) {
    list.append(element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value })))
  }
  part.append(list)
  if (cell.sha256) part.append(copyable("SHA-256", cell.sha256))
  if (row.command) part.append(copyable("Draw it again", row.command.join(cell.step)))
  return part
}

function nearestPhoto(photo) {
  const said = element("div", {},
    element("b", { textContent: "Nearest training photo" }),
    element("span", { textContent: `${photo.id}, feature distance ${photo.distance}` }),
    element("small", { textContent: photo.verdict }))
  const figure = element("div", { className: "nearest" })
  if (photo.url) {
    const image = element("img", { src: photo.thumbnail, alt: `Training photo ${photo.id}: ${photo.caption}`, loading: "lazy" })
    figure.append(element("a", { href: photo.url, target: "_blank", rel: "noopener", title: photo.caption }, image))
  }
  figure.append(said)
  return figure
}

function thumbnailOf(step, cell, marks, choose) {
  const button = element("button", {
    className: marks.join(" "),
    title: "Click: show as B. Shift and click: as A.",
    onclick: (event) => choose(event.shiftKey ? "a" : "b", step.name),
  })
  const inside = cell?.thumbnail ? element("img", { src: cell.thumbnail, alt: "" }) : element("i", { textContent: "–" })
  const names = marks.map((side) => side.toUpperCase()).join(" ")
  button.append(inside, `${names ? `${names}: ` : ""}${step.label}`)
  return button
}

function copyable(name, text) {
  const copy = element("button", { className: "copy", textContent: "Copy" })
  copy.onclick = async () => {
    await navigator.clipboard.writeText(text)
    copy.textContent = "Copied"
    setTimeout(() => { copy.textContent = "Copy" }, 1500)
  }
  const head = element("div", {}, element("span", { textContent: name }), copy)
  return element("div", { className: "copyable" }, head, element("code", { textContent: text }))
}
