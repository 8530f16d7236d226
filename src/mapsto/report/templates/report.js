const all = () => document.querySelectorAll("details");
const button = document.getElementById("expand");
button.hidden = false;
button.addEventListener("click", () => {
  const open = [...all()].some((d) => !d.open);
  all().forEach((d) => { d.open = open; });
  button.textContent = open ? "Collapse all" : "Expand all";
});
addEventListener("beforeprint", () => all().forEach((d) => { d.open = true; }));
