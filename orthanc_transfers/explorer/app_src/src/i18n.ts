/** Texts in the language of the user: a file for each, in `locales`. */
import { ref, watch } from 'vue'
import de from './locales/de.json'
import en from './locales/en.json'
import fr from './locales/fr.json'

const TEXTS: Record<string, Record<string, string>> = { en, fr, de }
export const LANGUAGES: Record<string, string> = { en: 'English', fr: 'Français', de: 'Deutsch' }
const KEY = 'transfers.language'

const wanted = [localStorage.getItem(KEY) ?? '', ...navigator.languages.map((one) => one.slice(0, 2))]
export const language = ref(wanted.find((one) => one in TEXTS) ?? 'en')

watch(
  language,
  (value) => {
    localStorage.setItem(KEY, value)
    document.documentElement.lang = value
  },
  { flush: 'sync' },
)
document.documentElement.lang = language.value

/** The text of that key; `{name}` in it is replaced. Plain text: never to be used as HTML. */
export function t(key: string, values: Record<string, unknown> = {}): string {
  const text = TEXTS[language.value][key] ?? en[key as keyof typeof en] ?? key
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all))
}
