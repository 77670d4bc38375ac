// What is known of the two pictures that are looked at, as text (never as HTML): scores, the nearest training photo, hash
// and command; and the row of thumbnails below them. It shows what it is given and knows no address of its own.

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

// `sides` are the two that are looked at: {mark: "A", label, cell}; a cell may be missing.
function factsOf(sides, row) {
  const heads = sides.map(({ mark, label, cell }) => element("section", {},
    element("h3", { textContent: `${mark}  ${label}` }),
    ...(cell?.reason ? [element("p", { className: "reason", textContent: cell.reason })] : []),
    ...(cell?.nearest ? [nearestPhoto(cell.nearest)] : [])))
  const parts = [element("div", { className: "two" }, ...heads)]
  if (sides.some(({ cell }) => cell?.scores.length)) parts.push(scoresOf(sides))
  for (const { mark, cell } of sides) {
    if (cell?.sha256) parts.push(copyable(`SHA-256 of ${mark}`, [["Copy", cell.sha256]], cell.sha256))
  }
  if (row.command) {
    const commands = sides.filter(({ cell }) => cell).map(({ mark, cell }) => [`Copy for ${mark}`, row.command.join(cell.step)])
    if (commands.length) parts.push(copyable(`Draw ${sides.at(-1).mark} again`, commands, commands.at(-1)[1]))
    if (commands.length > 1) parts.push(element("p", { className: "same", textContent: `${sides[0].mark}: the same with --step ${sides[0].cell.step}` }))
  }
  return parts
}

function scoresOf(sides) {
  const values = sides.map(({ cell }) => new Map(cell?.scores ?? []))
  const names = [...new Set(values.flatMap((known) => [...known.keys()]))]
  const head = element("tr", {}, element("td", {}), ...sides.map(({ mark }) => element("th", { textContent: mark, scope: "col" })))
  const lines = names.map((name) => element("tr", {},
    element("th", { textContent: name, scope: "row" }),
    ...values.map((known) => element("td", { textContent: known.get(name) ?? "–" }))))
  return element("table", {}, head, ...lines)
}

function nearestPhoto(photo) {
  const figure = element("div", { className: "nearest" })
  if (photo.url) {
    const image = element("img", { src: photo.thumbnail, alt: `Training photo ${photo.id}: ${photo.caption}`, loading: "lazy" })
    figure.append(element("a", { href: photo.url, target: "_blank", rel: "noopener", title: photo.caption }, image))
  }
  figure.append(element("div", {},
    element("small", { textContent: "Nearest training photo" }),
    element("b", { textContent: photo.id }),
    element("small", { textContent: `feature distance ${photo.distance}` }),
    element("small", { textContent: photo.verdict })))
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

// `copies` are [label of a button, what it copies]; `text` is what is shown.
function copyable(name, copies, text) {
  const buttons = copies.map(([label, content]) => {
    const copy = element("button", { className: "copy", textContent: label })
    copy.onclick = async () => {
      try {
        await navigator.clipboard.writeText(content)
        copy.textContent = "Copied"
      } catch { // of a server without encryption a browser takes nothing to its clipboard
        copy.textContent = "Mark and copy it: the browser refuses"
      }
      setTimeout(() => { copy.textContent = label }, 1500)
    }
    return copy
  })
  const head = element("div", {}, element("span", { textContent: name }), ...buttons)
  return element("div", { className: "copyable" }, head, element("code", { textContent: text }))
}
